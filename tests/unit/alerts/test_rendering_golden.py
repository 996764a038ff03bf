"""Every kind in every language by every method, as files to read: tests/golden/alerts/messages.

After a change of wording write them anew and read what git shows:

    .venv/bin/python -m tests.unit.alerts.test_rendering_golden
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.alerts.messages import Content, EmailContent, SmsContent
from services.alerts.samples import to_reviewers
from services.alerts.templating import LOCALES
from shared.events.alerts import METHODS
from tests.support.letters import AT, CATALOG, MESSAGE_ID, UNSUBSCRIBE, renderer

GOLDEN = Path(__file__).parents[2] / "golden" / "alerts" / "messages"
AGAIN = "if that is meant: .venv/bin/python -m tests.unit.alerts.test_rendering_golden, then read what git shows"


def files(name: str, content: Content) -> dict[str, str]:
    if isinstance(content, EmailContent):
        headers = f"Subject: {content.subject}\nUnsubscribe: {content.unsubscribe_url}\n\n"
        return {f"{name}.email.txt": headers + content.text, f"{name}.email.html": content.html}
    if isinstance(content, SmsContent):
        return {f"{name}.sms.txt": content.text + "\n"}
    return {f"{name}.webhook.json": json.dumps(json.loads(content.body), ensure_ascii=False, indent=1) + "\n"}


def written() -> dict[str, str]:
    made, found = renderer(), dict[str, str]()
    for locale in LOCALES:
        for method in METHODS:
            for kind in made.kinds():
                found |= files(f"{kind}.{locale}", made.preview(kind, method, locale))
            for kind, (to, items, _) in to_reviewers(locale, list(CATALOG)):
                content = made.render(method, to, items, code=None, unsubscribe_url=UNSUBSCRIBE, message_id=MESSAGE_ID, at=AT)
                found |= files(f"{kind}_to_reviewers.{locale}", content)
    return found


WRITTEN = written()


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_message_is_written_as_it_was_read_and_approved(name: str) -> None:
    path = GOLDEN / name
    assert path.is_file(), AGAIN
    assert WRITTEN[name] == path.read_text("utf-8"), AGAIN


def test_there_is_no_golden_message_that_nobody_writes() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(WRITTEN), AGAIN


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in GOLDEN.iterdir():
        old.unlink()
    for name, text in WRITTEN.items():
        (GOLDEN / name).write_text(text, "utf-8")
