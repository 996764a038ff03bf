"""Marking keys of a KV bucket to be written again: a change like that of the rows it goes with. Pure."""

from __future__ import annotations

import re
from typing import Final

from shared.eventlog.changes import Change, Idempotent

_KEY: Final = re.compile(r"[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*")
_MARK: Final = Idempotent(
    "kv_dirty",
    """
    INSERT INTO kv_dirty (bucket, key) SELECT * FROM unnest($1::text[], $2::text[]) ORDER BY 1, 2
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
    """,
)


def mark_dirty(bucket: str, key: str) -> Change:
    """The change that has `key` of `bucket` written again; goes with the changes of the rows, in the same transaction."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be the key of a KV bucket")
    return Change(_MARK, (bucket, key), key)
