"""Web, Android and iOS environments: grammar, reduction, matching."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.environments import (
    ANDROID_LENGTH_MAX,
    CACHE_ENTRIES,
    IOS_LENGTH_MAX,
    URL_LENGTH_MAX,
    EnvironmentProblem,
    _presented_main_domain,
    android_matches,
    ios_matches,
    reduce_all,
    reduce_android,
    reduce_ios,
    reduce_web,
    reduce_web_url,
    web_matches,
)

REDUCED = [
    ("http://naver.com", "naver.com"),
    ("https://naver.com", "naver.com"),
    ("HTTP://NAVER.COM", "naver.com"),
    ("  http://naver.com  ", "naver.com"),
    ("http://www.naver.com", "naver.com"),
    ("https://a.b.naver.com:8443/path?q=http://other.com#f", "naver.com"),
    ("http://naver.com.", "naver.com"),
    ("http://naver.com:", "naver.com"),
    ("http://naver.com?@evil.com", "naver.com"),
    ("http://naver.com#@evil.com", "naver.com"),
    ("http://naver.com\\@evil.com", "naver.com"),
    ("http://my_app.naver.com", "naver.com"),
    ("http://example.co.kr", "example.co.kr"),
    ("http://www.example.co.kr", "example.co.kr"),
    ("http://me.github.io", "me.github.io"),
    ("http://a.me.github.io", "me.github.io"),
    ("http://www.com", "www.com"),
    ("http://www.ck", "www.ck"),
    ("http://foo.bar.kawasaki.jp", "foo.bar.kawasaki.jp"),
    ("http://foo.city.kawasaki.jp", "city.kawasaki.jp"),
    ("http://app.intranet", "app.intranet"),
    ("http://한국.kr", "xn--3e0b707e.kr"),
    ("http://www.한국.kr", "xn--3e0b707e.kr"),
    ("http://XN--3E0B707E.kr", "xn--3e0b707e.kr"),
    ("http://도메인.한국", "xn--hq1bm8jm9l.xn--3e0b707e"),
    ("http://faß.de", "xn--fa-hia.de"),
    ("http://naver。com", "naver.com"),
    ("http://ｎａｖｅｒ.com", "naver.com"),
    ("http://bücher.example", "xn--bcher-kva.example"),
    ("http://192.0.2.1:8080/x", "192.0.2.1"),
    ("http://[2001:DB8::1]:80/", "[2001:db8::1]"),
    ("http://[2001:db8:0:0:0:0:0:1]", "[2001:db8::1]"),
    ("http://[::ffff:192.0.2.1]", "[::ffff:c000:201]"),
    ("http://localhost:3000", "localhost"),
    ("http://app.localhost", "localhost"),
    ("file:///android_asset/www/index.html", "file:"),
    ("file://local URL", "file:"),
    ("FILE:", "file:"),
    ("naver.com", "naver.com"),
    ("localhost", "localhost"),
    ("192.0.2.1", "192.0.2.1"),
    ("[2001:db8::1]", "[2001:db8::1]"),
]
REFUSED = [
    "",
    " ",
    "www.naver.com",
    "naver.com/x",
    "NAVER.com",
    "한국.kr",
    "ftp://naver.com",
    "ws://naver.com",
    "javascript:alert(1)",
    "chrome-extension://abc",
    "null",
    "http:naver.com",
    "http:/naver.com",
    "//naver.com",
    "http://",
    "http:///x",
    "http://.",
    "http://..",
    "http://.com",
    "http://a..com",
    "http://naver.com..",
    "http://com",
    "http://co.kr",
    "http://github.io",
    "http://한국",
    "http://intranet",
    "http://ck",
    "http://user@naver.com",
    "http://user:pass@naver.com",
    "http://@naver.com",
    "http://naver.com:99999",
    "http://naver.com:-1",
    "http://naver.com:8O",
    "http://naver.com:80:80",
    "http://naver.com:٨٠",
    "http://na ver.com",
    "http://naver.com\n",
    "http://naver.com\x00",
    "http://naver.com/\ud800",
    "http://na%76er.com",
    "http://-a.com",
    "http://a-.com",
    "http://a_b.com",
    "http://" + "a" * 64 + ".com",
    "http://" + "a." * 130 + "com",
    "http://xn--.com",
    "http://xn--0.com",
    "http://xn--zzzzzzzzzzzz.com",
    "http://💩.la",
    "http://a\u200db.com",
    "http://192.0.2",
    "http://192.0.2.256",
    "http://0x7f.0.0.1",
    "http://2130706433",
    "http://1.2.3.4.5",
    "http://[::1",
    "http://[::1]x",
    "http://[fe80::1%25eth0]",
    "http://[nope]",
    "http://::1",
    "http://*.naver.com",
    "http://naver.com/" + "x" * URL_LENGTH_MAX,
    "file:\x00",
]


@pytest.mark.parametrize(("entered", "reduced"), REDUCED)
def test_a_web_environment_is_reduced_to_its_main_domain(entered: str, reduced: str) -> None:
    assert reduce_web_url(entered) == reduced
    assert reduce_web_url(reduced) == reduced


@pytest.mark.parametrize("entered", REFUSED)
def test_what_is_no_web_environment_is_refused_with_a_way_out(entered: str) -> None:
    with pytest.raises(EnvironmentProblem) as refused:
        reduce_web_url(entered)
    assert refused.value.problem
    assert refused.value.hint


@pytest.mark.parametrize(
    ("presented", "reduced"),
    [
        ("https://www.naver.com", "naver.com"),
        ("https://dev.naver.com:8443/a/page?x=1", "naver.com"),
        ("null", "file:"),
        ("file://", "file:"),
        ("http://xn--3e0b707e.kr", "xn--3e0b707e.kr"),
        ("http://xn--ls8h.la", "xn--ls8h.la"),
        ("https://com", None),
        ("https://github.io", None),
        ("naver.com", None),
        ("", None),
        ("http://a http://b", None),
        ("capacitor://localhost", None),
        ("http://user@naver.com", None),
        ("http://[::1", None),
        ("http://naver.com/" + "x" * 10_000, None),
    ],
)
def test_what_a_caller_presents_is_reduced_or_none(presented: str, reduced: str | None) -> None:
    assert reduce_web(presented) == reduced


@given(st.text())
@example("http://\ud800")
@example("http://[")
@example("http://xn--\udfff.com")
@example("http://a\u0000b")
@example("http://" + "xn--" * 50)
def test_no_presented_text_breaks_it(presented: str) -> None:
    for prefix in ("", "http://", "https://[", "http://xn--"):
        assert reduce_web(prefix + presented) in (None, "file:") or reduce_web(prefix + presented)
        try:
            reduced = reduce_web_url(prefix + presented)
        except EnvironmentProblem:
            continue
        assert reduce_web_url(reduced) == reduced


LABELS = st.one_of(
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=12).filter(lambda label: label[:2].lower() != "xn"),
    st.text("가나다라마한국네이버日本中文éü", min_size=1, max_size=8),
)
SUFFIXES = st.sampled_from(["com", "co.kr", "kr", "github.io", "한국", "co.uk", "kawasaki.jp", "dev"])


@given(LABELS, SUFFIXES, st.lists(LABELS, max_size=3), st.sampled_from(["http", "https", "HTTPS"]), st.integers(0, 65535))
def test_a_domain_and_its_sub_domains_are_one(main: str, suffix: str, below: list[str], scheme: str, port: int) -> None:
    try:
        registered = reduce_web_url(f"http://{main}.{suffix}")
    except EnvironmentProblem:
        return  # a suffix of its own, such as city.kawasaki.jp's neighbours
    presented = f"{scheme}://{'.'.join([*below, main, suffix])}:{port}/x?y#z"
    if registered.count(".") == suffix.count(".") + 1:  # else the suffix list makes main.suffix a suffix: below it, all differ
        assert reduce_web(presented) == registered
        assert web_matches([registered], presented)
    assert not web_matches([registered], f"http://not{registered}")


def test_the_memory_of_hosts_is_bounded() -> None:
    assert _presented_main_domain.cache_info().maxsize == CACHE_ENTRIES


@pytest.mark.parametrize("name", ["com.example.app", "a.b", "Com.Example.App", "com.example.my_app2", "com.int.class", "a.b_"])
def test_android_package_names(name: str) -> None:
    assert reduce_android(f" {name} ") == name
    assert android_matches([name], name)
    assert not android_matches([name], name + "x")
    assert not android_matches([name], name.swapcase())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "app",
        "com.",
        ".com",
        "com..app",
        "com.1app",
        "com._app",
        "com.ex-ample",
        "com.exämple",
        "com.example.*",
        "com.a\n",
        "a b.c",
        "a." + "b" * ANDROID_LENGTH_MAX,
    ],
)
def test_no_android_package_names(name: str) -> None:
    with pytest.raises(EnvironmentProblem) as refused:
        reduce_android(name)
    assert refused.value.hint


@pytest.mark.parametrize("bundle_id", ["com.example.app", "com.Example.My-App", "single", "1.2.3", "a" * IOS_LENGTH_MAX])
def test_ios_bundle_ids(bundle_id: str) -> None:
    assert reduce_ios(bundle_id) == bundle_id
    assert ios_matches([bundle_id], bundle_id.swapcase())
    assert not ios_matches([bundle_id], bundle_id + "x")


@pytest.mark.parametrize(
    "bundle_id",
    ["", ".", "com.", ".com", "a..b", "com.example_app", "com.example.*", "com.ä", "a b", "a\n", "a" * (IOS_LENGTH_MAX + 1)],
)
def test_no_ios_bundle_ids(bundle_id: str) -> None:
    with pytest.raises(EnvironmentProblem) as refused:
        reduce_ios(bundle_id)
    assert refused.value.hint


def test_repetitions_are_folded_in_order() -> None:
    web = ["http://b.com", "https://www.a.com", "http://x.b.com:80", "file:///a", "file:///b", "http://a.com"]
    assert reduce_all(web, reduce_web_url) == ("b.com", "a.com", "file:")
    assert reduce_all(["com.A.b", "com.a.B"], reduce_ios) == ("com.A.b",)
    assert reduce_all(["com.A.b", "com.a.b", "com.a.b"], reduce_android) == ("com.A.b", "com.a.b")
