"""The ways to reach people: each takes an Outgoing and answers Receipt, Refused or TryLater (services/alerts/messages.py)."""
