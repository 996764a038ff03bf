"""Accounts' terms acceptance, applications, credentials, service environments, the catalog. See README.md."""
