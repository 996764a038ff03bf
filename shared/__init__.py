"""What every service stands on. Nothing here knows any service."""
