"""Metering: what was counted, for whom, in which window. Exactly once."""
