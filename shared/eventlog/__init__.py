"""The append-only event log of a deciding service, and the one way to decide something: `Transactor.run`."""
