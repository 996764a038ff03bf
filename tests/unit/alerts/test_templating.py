"""What own templates are tried with before they are used, and what they are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.alerts.rendering import Renderer
from services.alerts.templating import TemplateBroken
from tests.support.letters import crossed, email, item, renderer, sms, tags_of, text_of, webhook


def own(folder: Path, **files: str) -> Renderer:
    """A renderer with own templates; `ko_sms_txt` is ko/sms.txt."""
    for key, text in files.items():
        path = folder / key[:2] / key[3:].replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return renderer(folder)


def test_what_only_some_message_would_meet_is_met_at_start(tmp_path: Path) -> None:
    """Each kind, the account's own limit, calls that are refused, an old secret that works no longer: all are tried."""
    for condition in (
        "top.kind == 'review_decided' and not top.approved",
        "top.exhausted and not top.app",
        "top.test_quota",
        "more",
    ):
        with pytest.raises(TemplateBroken, match=r"email\.txt:1: 'gone' is undefined"):
            own(tmp_path, en_email_txt="{% if " + condition + " %}{{ gone }}{% endif %}")


def test_folders_of_a_mounted_config_map_may_be_links_too(tmp_path: Path) -> None:
    behind = tmp_path / "..2026_11_24" / "en"
    behind.mkdir(parents=True)
    (behind / "subject.txt").write_text("mounted", "utf-8")
    (tmp_path / "..data").symlink_to("..2026_11_24")
    (tmp_path / "en").symlink_to("..data/en")
    assert email(renderer(tmp_path), item()).subject == "mounted"


def test_an_own_text_message_that_grows_too_long_is_replaced_too(tmp_path: Path) -> None:
    made = own(tmp_path, ko_sms_txt="{{ 'x' * (91 if top.percent == 33 else 9) }}")
    assert sms(made, item(crossed(33)), locale="ko") == sms(renderer(), item(crossed(33)), locale="ko")


def test_own_templates_get_names_that_are_harmless_where_they_stand(tmp_path: Path) -> None:
    name = '<b onload="x">\r\n@here <!channel>\u202e'
    made = own(
        tmp_path,
        en_subject_txt="{{ top.app }}\nBcc: x@y.example",
        en_webhook_txt="{{ top.app }} {% for line in lines %}{{ line.app }}{% endfor %}",
        en_email_html="<p>{{ top.app }}<i>{{ sections[0].app }}</i></p>",
    )
    mail = email(made, item(app_name=name))
    assert mail.subject == '<b onload="x"> @here <!channel> Bcc: x@y.example'
    assert [tag for tag, _ in tags_of(mail.html)] == ["p", "i"]
    assert text_of(mail.html).count('<b onload="x"> @here <!channel>') == 2
    text = json.loads(webhook(made, item(app_name=name)))["text"]
    assert not {"<", ">", "@"} & set(text)
