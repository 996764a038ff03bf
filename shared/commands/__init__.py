"""What services ask of each other: pydantic models per service, and the one way they travel (NATS request/reply)."""
