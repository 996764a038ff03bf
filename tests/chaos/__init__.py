"""Faults in random order, from a seed, on the real stack under load; and what must be true afterwards. `make chaos`."""
