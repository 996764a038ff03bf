"""What is sent, in the words of the templates: mails, text messages, webhooks. Pure once it is made.

Same items, addressee and time: same content, byte for byte. What others have named comes through `plain` before a template sees
it, so that a template, also an operator's, cannot get it wrong.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from services.alerts.lines import Line, Reader, Telling, sections, urgency
from services.alerts.links import Links
from services.alerts.messages import Addressee, Content, EmailContent, Item, SmsContent, WebhookContent
from services.alerts.plain import chat, chat_line, clipped, plain
from services.alerts.samples import AT, MESSAGE_ID, SAMPLES, Sample, sample, samples
from services.alerts.sms_text import carried, fitting
from services.alerts.templating import LOCALES, TemplateBroken, Templates, own_files
from services.alerts.wording import zone_of
from shared.catalog import CatalogEntry
from shared.events.alerts import METHODS, Crossed, Locale, Method, Testing, Verifying

WRITTEN_MAX: Final = 50
"""Things written out in a mail; how many more there are is said."""
CHAT_MAX: Final = 10
"""The same in the text of a webhook, which a chat shows."""
DATA_ITEMS_MAX: Final = 1_000
"""Items in the data of a webhook."""
SUBJECT_MAX: Final = 150
NAME_MAX: Final = 60
WEBHOOK_TYPE: Final = "tollbook.notification"

log = logging.getLogger(__name__)


class _Letter(NamedTuple):
    """One message to be written."""

    addressee: Addressee
    items: Sequence[Item]
    lines: Sequence[Line]
    zone: tzinfo
    code: str | None
    unsubscribe_url: str | None
    message_id: str
    at: datetime


class Renderer:
    """Makes contents of items.

    `catalog` names services, `links` is where messages point to. `own`: a folder of an operator's templates that stand in for the
    shipped ones (templates/README.md). Raises TemplateBroken, naming file and line, if one of them cannot be used: each is tried
    with every sample. Should one fail all the same when it matters, the shipped one is used and the log says so.
    """

    def __init__(self, catalog: Mapping[str, CatalogEntry], links: Links, own: Path | None = None) -> None:
        self._telling = Telling(catalog, links)
        self._shipped = Templates()
        self._templates = self._shipped if own is None else Templates(own_files(own))
        if own is not None:
            self._try_all()

    def render(
        self,
        method: Method,
        addressee: Addressee,
        items: Sequence[Item],
        *,
        code: str | None,
        unsubscribe_url: str | None,
        message_id: str,
        at: datetime,
    ) -> Content:
        """One message that tells all `items` (1 to 10,000).

        `code`: what an item of kind verification tells. `at`: now. Raises ValueError without items, or if a code is needed and
        there is none, UnknownZone if the addressee's is none.
        """
        letter = self._letter(addressee, items, code, unsubscribe_url, message_id, at)
        try:
            return self._write(method, letter, self._templates)
        except TemplateBroken as broken:
            if self._templates is self._shipped:
                raise
            log.warning("alerts: a message is written with the shipped templates, as an own one failed: %s", broken)
            return self._write(method, letter, self._shipped)

    def preview(self, kind: str, method: Method, locale: Locale) -> Content:
        """What a made-up occasion would be told as; `kind` is one of `kinds()`. Raises KeyError for another."""
        return self._write(method, self._sampled(sample(kind, locale, self._services())), self._templates)

    @staticmethod
    def kinds() -> tuple[str, ...]:
        """What there are previews of: every kind of message, and "digest" for many in one."""
        return SAMPLES

    def _letter(
        self,
        addressee: Addressee,
        items: Sequence[Item],
        code: str | None,
        unsubscribe_url: str | None,
        message_id: str,
        at: datetime,
    ) -> _Letter:
        if not items:
            raise ValueError("a message tells at least one item")
        if code is None and any(isinstance(item.about, Verifying) for item in items):
            raise ValueError("a verification tells a code, and there is none")
        zone = zone_of(addressee.zone)
        lines = self._telling.lines(items, Reader(addressee.locale, zone, at, code or ""))
        return _Letter(addressee, items, lines, zone, code, unsubscribe_url, message_id, at)

    def _write(self, method: Method, letter: _Letter, templates: Templates) -> Content:
        match method:
            case "email":
                return self._email(letter, templates)
            case "sms":
                return self._sms(letter, templates)
            case "webhook":
                return self._webhook(letter, templates)

    def _email(self, letter: _Letter, templates: Templates) -> EmailContent:
        locale = letter.addressee.locale
        lines = [_worded(line, locale, templates, _in_quotes(line.app)) for line in letter.lines[:WRITTEN_MAX]]
        known = self._known(letter) | {
            "name": clipped(plain(letter.addressee.name), NAME_MAX),
            "top": lines[0],
            "sections": sections(lines),
            "more": len(letter.lines) - len(lines),
            "unsubscribe_url": letter.unsubscribe_url,
        }
        subject = clipped(plain(templates.render(f"{locale}/subject.txt", known)), SUBJECT_MAX)
        text = _tidy(templates.render(f"{locale}/email.txt", known))
        html = templates.render(f"{locale}/email.html", known | {"subject": subject})
        return EmailContent(subject, text, html.strip() + "\n", letter.unsubscribe_url)

    def _sms(self, letter: _Letter, templates: Templates) -> SmsContent:
        locale, top = letter.addressee.locale, letter.lines[0]
        known = self._known(letter)
        names = (carried(top.app) or top.client_id or top.review_id, carried(top.service) or top.service_id)

        def write(shortened: Sequence[str], figures: bool) -> str:
            app, service = shortened
            line = replace(top, app=app, service=service)
            return plain(templates.render(f"{locale}/sms.txt", known | {"top": line, "figures": figures}))

        text = fitting(write, names)
        if text is None:
            raise TemplateBroken(
                f"{templates.where(f'{locale}/sms.txt')}: even without names, {top.kind} is more than one segment"
            )
        return SmsContent(text)

    def _webhook(self, letter: _Letter, templates: Templates) -> WebhookContent:
        locale = letter.addressee.locale
        named = [replace(line, app=chat(line.app), service=chat_line(line.service)) for line in letter.lines[:CHAT_MAX]]
        lines = [_worded(line, locale, templates, line.app) for line in named]
        known = self._known(letter) | {"top": lines[0], "lines": lines, "more": len(letter.lines) - len(lines)}
        items = letter.items
        if len(items) > DATA_ITEMS_MAX:
            items = sorted(items, key=lambda item: -urgency(item.about))[:DATA_ITEMS_MAX]
        data: dict[str, Any] = {
            "message_id": letter.message_id,
            "items": [self._as_data(item, locale) for item in items],
            "more": len(letter.items) - len(items),
        }
        if letter.code is not None:
            data["code"] = letter.code
        body = {
            "type": WEBHOOK_TYPE,
            "timestamp": letter.at.astimezone(UTC),
            "text": _tidy(templates.render(f"{locale}/webhook.txt", known)).rstrip(),
            "data": data,
        }
        return WebhookContent(msgspec.json.encode(body))

    def _known(self, letter: _Letter) -> dict[str, Any]:
        """What every template may use."""
        return {
            "locale": letter.addressee.locale,
            "zone": plain(letter.addressee.zone),
            "top": letter.lines[0],
            "total": len(letter.lines),
            "others": len(letter.lines) - 1,
            "console": self._telling.links.console,
        }

    def _as_data(self, item: Item, locale: Locale) -> dict[str, Any]:
        """For programs: ids and figures as they are, and the names that go with them. Not where the vault has a code."""
        about = msgspec.to_builtins(item.about, builtin_types=(datetime,))
        about.pop("vault_id", None)
        kind = about.pop("type")
        data = {
            "request_id": item.request_id,
            "kind": kind,
            "client_id": item.client_id,
            "app_name": item.app_name.encode("utf-8", "replace").decode(),
            "service": item.service,
            "service_name": self._telling.service_name(item.service, locale),
            "url": self._telling.url(item),
            "about": about,
        }
        return data | {"unit": self._telling.unit(item.service)} if isinstance(item.about, Crossed) else data

    def _services(self) -> list[str]:
        return list(self._telling.catalog)

    def _sampled(self, occasion: Sample) -> _Letter:
        asked_for = any(isinstance(item.about, Verifying | Testing) for item in occasion.items)
        unsubscribe_url = None if asked_for else self._telling.links.unsubscribe("sample")
        return self._letter(occasion.addressee, occasion.items, occasion.code, unsubscribe_url, MESSAGE_ID, AT)

    def _try_all(self) -> None:
        for locale in LOCALES:
            for _, occasion in samples(locale, self._services()):
                for method in METHODS:
                    self._write(method, self._sampled(occasion), self._templates)


def _worded(line: Line, locale: Locale, templates: Templates, app: str) -> Line:
    """The line with its sentence, in which the application is called `app`."""
    named = {"line": replace(line, app=app), "locale": locale}
    return replace(line, sentence=plain(templates.render(f"{locale}/sentence.txt", named)))


def _in_quotes(name: str) -> str:
    return f"'{name}'" if name else ""


def _tidy(text: str) -> str:
    """No spaces at line ends (but of a signature's "-- "), no more than one empty line, one line end at the end."""
    lines = (line if line == "-- " else line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"
