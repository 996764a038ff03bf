"""What can stop the embedded stack from running."""

from __future__ import annotations


class StackError(Exception):
    """Something that the person who typed `make run` must put right. The text is the one clear line that is printed."""
