"""Limits under fire: many gate processes, real servers, kill -9, SIGSTOP and midnight; then the accounting, to the unit."""
