"""The REST API for people and scripts, API tokens, and who may watch which dashboards. No business rules."""
