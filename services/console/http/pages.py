"""The pages that people see without signing in, in Korean and English: plain HTML, no script. Pure."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import Final, NamedTuple

from shared.commands.contacts import LOCALE_DEFAULT
from shared.events.alerts import Locale

_LOCALES: Final[dict[str, Locale]] = {"ko": "ko", "en": "en"}
_ACCEPTED_MAX: Final = 500
"""Characters of an Accept-Language header that are read."""

_STYLE: Final = (
    "body{max-width:30rem;margin:4rem auto;padding:0 1rem;font:1rem/1.6 system-ui,sans-serif;color:#222;background:#fff}"
    "h1{font-size:1.3rem}button{font:inherit;padding:.5rem 1.2rem}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Robots-Tag": "noindex, nofollow",
    "Vary": "Accept-Language",
}
"""On every page: it may be styled by the one style that is in it, and send its form to where it came from; nothing else."""


class Words(NamedTuple):
    """What one page says. `button` "": it has none."""

    title: str
    text: str
    button: str = ""


def language_of(accepted: str) -> Locale:
    """Of the languages of an Accept-Language header the one that is wanted most and that there is; else LOCALE_DEFAULT."""
    best, best_weight = LOCALE_DEFAULT, 0.0
    for part in accepted[:_ACCEPTED_MAX].split(","):
        name, _, parameter = part.strip().partition(";")
        locale = _LOCALES.get(name.strip().lower().partition("-")[0])
        if locale is not None and (weight := _weight(parameter)) > best_weight:
            best, best_weight = locale, weight
    return best


def page(words: Words, locale: Locale) -> str:
    """The page, whole. Its form is sent to its own address, with what a mail program's one-click request has."""
    title, text, button = (html.escape(part) for part in words)
    form = (
        '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">'
        f'<button type="submit">{button}</button></form>'
    )
    return (
        f'<!DOCTYPE html><html lang="{locale}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta name="robots" content="noindex, nofollow"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1><p>{text}</p>{form if button else ''}</main></body></html>\n"
    )


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
