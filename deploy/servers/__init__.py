"""NATS, PostgreSQL and Caddy as child processes: their programs and their configuration. The stack and the tests use it."""
