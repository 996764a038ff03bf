"""Service apps: applied for, reviewed, approved, suspended."""
