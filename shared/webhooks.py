"""What may be the address of a webhook. Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

WEBHOOK_URL_MAX: Final = 500


def webhook_url_problem(url: str) -> str | None:
    """What is wrong with it, None if nothing is."""
    if len(url) > WEBHOOK_URL_MAX:
        return f"The URL is longer than {WEBHOOK_URL_MAX} characters."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "This is not a URL."
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "This is not a URL with https:// or http:// and a host."
    if parts.username or parts.password or parts.fragment:
        return "A webhook's URL has no user, password or fragment in it."
    if any(character <= " " or character > "~" for character in url):
        return "There is a character in the URL that has to be percent-encoded."
    return None
