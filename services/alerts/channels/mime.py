"""A mail as it is sent: headers and parts (RFC 5322, MIME), made by the standard library's email package. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from email.header import Header
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote

from services.alerts.messages import EmailContent

SUBJECT_MAX: Final = 400
"""Characters; the rest is left out."""
PLAIN_MAX: Final = 60
"""Characters of a subject that stands in one line, if it is ASCII; else it is encoded words."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_UNSENDABLE = re.compile(r"[\x00\ud800-\udfff]")
_TURNED = re.compile("[\u202a-\u202e\u2066-\u2069]")
_URL_SAFE: Final = "/:?#[]@!$&'()*+,;=%~"


class Sender(NamedTuple):
    """Whom mails come from."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


class Recipient(NamedTuple):
    """`utf8`: the part before the @ is not ASCII, so that the server must know SMTPUTF8. A domain is ASCII always (punycode)."""

    address: str
    utf8: bool = False


def one_line(text: str) -> str:
    """Fit for a header: whatever could end a line is a space, and what turns the direction of writing is gone."""
    return " ".join(_TURNED.sub("", _BREAKS.sub(" ", text)).split())


def message_id_of(message_id: str, sender: Sender) -> str:
    """The Message-ID: the same however often it is tried, by which mailboxes and people know a repetition."""
    return f"<{message_id}@{sender.domain}>"


def build_mail(
    message_id: str, created_at: datetime, content: EmailContent, sender: Sender, recipient: Recipient
) -> EmailMessage:
    """Text and HTML as alternatives. The same arguments give the same bytes, of which none but an address is above ASCII."""
    mail = EmailMessage(policy=_policy(utf8=recipient.utf8))
    mail["From"] = Address(display_name=one_line(sender.name), addr_spec=sender.address)
    local, _, domain = recipient.address.rpartition("@")  # in two, as an addr_spec may not have UTF-8
    mail["To"] = Address(username=local, domain=domain)
    mail["Subject"] = one_line(content.subject)[:SUBJECT_MAX].rstrip()
    mail["Date"] = created_at
    mail["Message-ID"] = message_id_of(message_id, sender)
    mail["Auto-Submitted"] = "auto-generated"
    if content.unsubscribe_url is not None:
        mail["List-Unsubscribe"] = f"<{quote(content.unsubscribe_url, safe=_URL_SAFE)}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(_UNSENDABLE.sub("\ufffd", content.text))
    mail.add_alternative(_UNSENDABLE.sub("\ufffd", content.html), subtype="html")
    mail.set_boundary(f"=_{message_id}")
    return mail


class _Verbatim(UnstructuredHeader):
    """A header that is one line. The package would break a long URL or id up into encoded words, which nobody reads as one."""

    name: str

    def fold(self, *, policy: Any) -> str:
        return f"{self.name}: {self}{policy.linesep}"


class _Subject(UnstructuredHeader):
    """Text as it is. The package would decode what looks like an encoded word, be it that an application is called so, and cannot
    write what some of them give; and it loses a space between encoded words wherever a line break comes there.
    """

    name: str

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        kwds["parse_tree"] = cls.value_parser("")
        kwds["decoded"] = value

    def fold(self, *, policy: Any) -> str:
        text = str(self)
        if not text.isascii() or "=?" in text or len(text) > PLAIN_MAX:
            text = Header(text, "utf-8", header_name=self.name).encode(linesep=policy.linesep)
        return f"{self.name}: {text}{policy.linesep}"


def _policy(*, utf8: bool) -> EmailPolicy[EmailMessage]:
    registry = HeaderRegistry()
    for name in ("list-unsubscribe", "message-id"):
        registry.map_to_type(name, cast(Any, _Verbatim))
    registry.map_to_type("subject", cast(Any, _Subject))
    # Parts in 7 bits: then no server has to know 8BITMIME, and none recodes what was signed on the way.
    return (SMTPUTF8 if utf8 else SMTP).clone(cte_type="7bit", header_factory=registry)
