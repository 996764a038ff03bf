"""An operator's own templates: used, refused with file and line, and never the end of a message. Reads files, no more."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from jinja2 import Environment
from jinja2.meta import find_undeclared_variables

from services.alerts.lines import Line, Section
from services.alerts.templating import NAMES, SHIPPED, TemplateBroken
from tests.support.letters import crossed, email, item, renderer, sms, webhook


def own(folder: Path, **files: str) -> Path:
    """`ko_sms_txt="..."` is ko/sms.txt."""
    for name, text in files.items():
        path = folder / name.replace("_", "/", 1).replace("_", ".") if name != "layout_html" else folder / "layout.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def test_an_own_template_stands_in_for_the_shipped_one_and_the_others_stay(tmp_path: Path) -> None:
    made = renderer(own(tmp_path, ko_subject_txt="(Acme) {{ top.percent }}% {{ top.app }}"))
    assert email(made, item(), locale="ko").subject == "(Acme) 90% Weather"
    assert email(made, item(), locale="ko").text == email(renderer(), item(), locale="ko").text
    assert email(made, item()).subject == email(renderer(), item()).subject


def test_an_own_layout_is_escaped_as_well(tmp_path: Path) -> None:
    made = renderer(own(tmp_path, layout_html="<p>{{ top.app }}|{{ top.sentence }}|{{ words.greeting }}</p>"))
    assert "<b>" not in email(made, item(app_name="<b>"), name="<b>").html
    assert "<p>&lt;b&gt;|" in email(made, item(app_name="<b>"), name="<b>").html


@pytest.mark.parametrize(
    ("name", "text", "where", "problem"),
    [
        ("ko_subject_txt", "one\n{{ top.percent", "ko/subject.txt:2", "unexpected end of template"),
        ("ko_subject_txt", "one\n\n{{ top.percnt }}", "ko/subject.txt:3", "has no attribute 'percnt'"),
        ("ko_subject_txt", "{% if top.exhausted %}\n{{ tpo }}\n{% endif %}", "ko/subject.txt:2", "'tpo' is undefined"),
        ("en_sentence_txt", "{{ line.sentence.x }}", "en/sentence.txt:1", "has no attribute 'x'"),
        ("en_email_txt", "{{ 1 / 0 }}", "en/email.txt:1", "ZeroDivisionError"),
        ("en_email_html", "<p>\n{{ top.app | safe }}</p>", "en/email.html:2", "No filter named 'safe'"),
        ("en_email_html", "{% autoescape false %}{{ name }}{% endautoescape %}", "en/email.html:1", "autoescape"),
        ("en_email_html", "{% from 'en/email.txt' import x %}", "en/email.html:1", "not escaped"),
        ("en_email_html", "\n{% include name %}", "en/email.html:2", "named by one of"),
        ("en_email_html", "{% include 'other.html' %}", "en/email.html:1", "named by one of"),
        ("en_webhook_txt", "{{ top.__class__.__mro__ }}", "en/webhook.txt:1", "SecurityError"),
        ("en_webhook_txt", "{% for x in range(1000000) %}{% endfor %}", "en/webhook.txt:1", "OverflowError"),
        ("ko_sms_txt", "긴 " * 40, "ko/sms.txt", "more than one segment"),
        ("layout_html", "{{ words.greting }}", "layout.html:1", "has no attribute 'greting'"),
        ("en_email_html", "x" * 100_001, "en/email.html", "larger than 100000 bytes"),
    ],
)
def test_a_broken_one_is_refused_when_made_with_file_and_line(
    tmp_path: Path, name: str, text: str, where: str, problem: str
) -> None:
    with pytest.raises(TemplateBroken) as refused:
        renderer(own(tmp_path, **{name: text}))
    assert str(refused.value).startswith(f"{tmp_path}/{where}")
    assert problem in str(refused.value)


def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateBroken, match=r"subjekt\.txt: no message is made of it"):
        renderer(own(tmp_path, ko_subjekt_txt="x"))
    with pytest.raises(TemplateBroken, match="there is no such folder"):
        renderer(tmp_path / "nowhere")


def test_what_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    (own(tmp_path, ko_sms_txt="") / "ko" / "sms.txt").write_bytes("ok\n사용량".encode("euc-kr"))
    with pytest.raises(TemplateBroken, match=r"ko/sms\.txt:2: is not UTF-8"):
        renderer(tmp_path)


def test_notes_and_a_mounted_config_map_may_lie_beside(tmp_path: Path) -> None:
    """Kubernetes mounts files as links to what is in a folder whose name begins with dots."""
    own(tmp_path / "..2026" / "x", ko_subject_txt="mounted")
    (tmp_path / "ko").mkdir()
    (tmp_path / "ko" / "subject.txt").symlink_to(tmp_path / "..2026" / "x" / "ko" / "subject.txt")
    (tmp_path / "README.md").write_text("Ours.")
    assert email(renderer(tmp_path), item(), locale="ko").subject == "mounted"


def test_one_that_fails_only_when_it_matters_does_not_keep_the_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        f"en_{part}_txt": "{% if top.percent == 77 %}{{ nothing[top.app] }}{% endif %}x" for part in ("subject", "sms", "webhook")
    }
    made, shipped, told = renderer(own(tmp_path, **files)), renderer(), item(crossed(77), "Private")
    with caplog.at_level(logging.WARNING):
        assert email(made, told) == email(shipped, told)
        assert sms(made, told) == sms(shipped, told)
        assert webhook(made, told) == webhook(shipped, told)
    assert len(caplog.records) == 3
    assert f"{tmp_path}/en/subject.txt:1" in caplog.text
    assert "Private" not in caplog.text
    assert sms(made, item()) == "x"


def test_an_error_does_not_quote_what_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quoting = "{% if top.percent == 77 %}{{ {}[top.app] ~ top[top.app] }}{% endif %}x"
    made = renderer(own(tmp_path, en_sms_txt=quoting))
    with caplog.at_level(logging.WARNING):
        sms(made, item(crossed(77), "Private"))
    assert "en/sms.txt:1" in caplog.text
    assert "Private" not in caplog.text


def test_files_are_read_when_made_and_not_later(tmp_path: Path) -> None:
    made = renderer(own(tmp_path, ko_subject_txt="before"))
    own(tmp_path, ko_subject_txt="after")
    assert email(made, item(), locale="ko").subject == "before"


def test_every_shipped_file_is_a_template_and_every_template_is_shipped() -> None:
    files = {path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.suffix in {".txt", ".html"}}
    assert files == set(NAMES)


def test_the_page_about_templates_names_every_file_and_variable() -> None:
    page = (SHIPPED / "README.md").read_text("utf-8")
    named = set(re.findall(r"`([\w.]+)`", page))
    assert {name.rpartition("/")[2] for name in NAMES} <= named
    assert {*Line.__struct_fields__, *Section._fields} - {"urgency", "client_id", "service_id"} <= named
    used: set[str] = set()
    for name in NAMES:
        used |= find_undeclared_variables(Environment().parse((SHIPPED / name).read_text("utf-8")))
    assert used <= named


def test_the_programs_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (SHIPPED / "README.md").read_text("utf-8")
    subject, program = (re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[0] for language in ("jinja", "python"))
    own(tmp_path / "my-templates", ko_subject_txt=subject)
    (tmp_path / "deploy").symlink_to(Path(__file__).parents[3] / "deploy")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert "<title>[우리 회사] 계정 전체 100%</title>" in (tmp_path / "preview.html").read_text("utf-8")
