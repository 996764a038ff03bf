"""What people see without signing in: in their language, and harmless."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from services.console.http.pages import HEADERS, Words, language_of, page


@pytest.mark.parametrize(
    ("accepted", "locale"),
    [
        ("", "ko"),
        ("en", "en"),
        ("ko", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("fr-FR, ko-KR;q=0.5, en;q=0.4", "ko"),
        ("ko;q=0.1,EN-gb;q=0.2", "en"),
        ("en;q=0", "ko"),
        ("en;q=much, ko;q=0.1", "ko"),
        ("en;q=nan", "ko"),
        ("fr", "ko"),
        (",;,;;q=1," * 10_000 + "en", "ko"),
    ],
)
def test_the_language_that_is_wanted_most(accepted: str, locale: str) -> None:
    assert language_of(accepted) == locale


def test_what_is_said_is_escaped() -> None:
    shown = page(Words("<a>", "\"&'</p><script>", "<b>"), "en")
    assert "<script" not in shown
    assert shown.count("&lt;a&gt;") == 2
    assert "&quot;&amp;&#x27;&lt;/p&gt;&lt;script&gt;" in shown


def test_a_page_has_a_form_only_with_a_button() -> None:
    assert "<form" not in page(Words("a", "b"), "ko")
    shown = page(Words("a", "b", "c"), "ko")
    assert '<html lang="ko">' in shown
    assert 'name="List-Unsubscribe" value="One-Click"' in shown
    assert "action=" not in shown, "sent to where the page came from, whatever stands before the console"


def test_the_policy_allows_the_style_that_is_there_and_no_script() -> None:
    [style] = re.findall("<style>(.*)</style>", page(Words("a", "b", "c"), "en"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = HEADERS["Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script" not in policy
