"""Alerts: who is told of what, and that it reaches them."""
