"""Leases and counting on virtual time, with every delay, loss, repetition, crash and pause chosen by a seed."""
