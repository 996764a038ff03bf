"""What tests of messages stand on: a catalog, a renderer, items, and the structure of a page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from services.alerts.links import Links
from services.alerts.messages import Addressee, EmailContent, Item, SmsContent, WebhookContent
from services.alerts.rendering import Renderer
from shared.catalog import CatalogEntry
from shared.events.alerts import Crossed, Locale

AT = datetime(2026, 11, 24, 5, 12, tzinfo=UTC)
DAY = (datetime(2026, 11, 23, 15, tzinfo=UTC), datetime(2026, 11, 24, 15, tzinfo=UTC))
CLIENT_ID = "k3v9x2m1q8w7e5r4t6y0"
MESSAGE_ID = "0123456789abcdef" * 2
UNSUBSCRIBE = "https://console.example/unsubscribe/t0ken"


def entry(service: str, en: str, ko: str, unit: str) -> CatalogEntry:
    return CatalogEntry.model_validate(
        {
            "id": service,
            "name": {"en": en, "ko": ko},
            "unit": unit,
            "docs": "https://docs.example",
            "pricing": "https://prices.example",
            "proxy_path": f"/{service}",
            "upstream": "sample",
        }
    )


CATALOG = {
    "csr": entry("csr", "CLOVA Speech Recognition (CSR)", "CLOVA Speech Recognition (CSR)", "second15"),
    "papago-nmt": entry("papago-nmt", "Papago Text Translation", "Papago 텍스트 번역", "character"),
    "captcha-image": entry("captcha-image", "CAPTCHA (Image)", "이미지 캡차", "call"),
}


def renderer(own: Path | None = None, catalog: Mapping[str, CatalogEntry] = CATALOG) -> Renderer:
    return Renderer(catalog, Links("https://console.example"), own)


def addressee(locale: Locale, zone: str = "Asia/Seoul", name: str = "") -> Addressee:
    return Addressee(name, locale, zone)


def crossed(percent: int = 90, **fields: Any) -> Crossed:
    known: dict[str, Any] = {"used": 10 * percent, "limit": 1000, "limit_version": 1}
    return Crossed("daily", *DAY, percent, **{**known, **fields})


def item(about: Any = None, app_name: str = "Weather", client_id: str = CLIENT_ID, service: str = "captcha-image") -> Item:
    return Item("request-1", client_id, app_name, service, crossed() if about is None else about)


def email(made: Renderer, *items: Item, locale: Locale = "en", zone: str = "Asia/Seoul", name: str = "") -> EmailContent:
    to = addressee(locale, zone, name)
    content = made.render("email", to, items, code="123456", unsubscribe_url=UNSUBSCRIBE, message_id=MESSAGE_ID, at=AT)
    assert isinstance(content, EmailContent)
    return content


def sms(made: Renderer, *items: Item, locale: Locale = "en", code: str = "123456") -> str:
    content = made.render("sms", addressee(locale), items, code=code, unsubscribe_url=None, message_id=MESSAGE_ID, at=AT)
    assert isinstance(content, SmsContent)
    return content.text


def webhook(made: Renderer, *items: Item, locale: Locale = "en", code: str | None = "123456") -> bytes:
    content = made.render("webhook", addressee(locale), items, code=code, unsubscribe_url=None, message_id=MESSAGE_ID, at=AT)
    assert isinstance(content, WebhookContent)
    return content.body


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ((data, None),)))


def tags_of(html: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    """Every element with its attributes, as a browser reads them; two parsers have to agree on how many there are."""
    page = _Page()
    page.feed(html)
    page.close()
    assert len(page.tags) == sum(1 for _ in ElementTree.fromstring(html).iter())
    return page.tags


def text_of(html: str) -> str:
    page = _Page()
    page.feed(html)
    page.close()
    return page.text


def cells_of(html: str) -> list[list[str]]:
    """The table's rows as texts."""
    rows = ElementTree.fromstring(html).iter("tr")
    return [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in rows]
