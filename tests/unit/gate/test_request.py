"""What a call presents, read from headers and query strings of every kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gate.domain import Call, Credentials, Reason
from services.gate.request import Headers, read_call
from shared.events.usage import QUANTITY_MAX

ID, SECRET = "k3v9aaaaaaaaaaaaaaaa", "S" * 40
ID_HEADER = (b"x-ncp-apigw-api-key-id", ID.encode())
SECRET_HEADER = (b"x-ncp-apigw-api-key", SECRET.encode())
BOTH = [ID_HEADER, SECRET_HEADER]
QUERY = f"X-NCP-APIGW-API-KEY-ID={ID}&X-NCP-APIGW-API-KEY={SECRET}"
RIGHT = Credentials(ID, SECRET)


def read(*headers: tuple[bytes, bytes], query: bytes = b"") -> Call:
    return read_call(headers, query)


def test_credentials_in_headers_and_nothing_else_is_a_server_with_one_call() -> None:
    assert read(*BOTH, (b"host", b"gate")) == Call(RIGHT, "", "", "", 1)


@pytest.mark.parametrize("header", [b"x-forwarded-uri", b"x-original-uri"])
@pytest.mark.parametrize(
    "uri",
    [
        f"/recog/v1/stt?lang=Kor&{QUERY}",
        f"/recog/v1/stt?{QUERY.lower().replace(SECRET.lower(), SECRET)}#fragment",
        f"https://api.example/recog?{QUERY}",
        f"?{QUERY}&x-ncp-apigw-api-key={SECRET}",
        "/x?X%2dNCP-APIGW-API-KEY-ID=%6B3v9aaaaaaaaaaaaaaaa&X-NCP-APIGW-API-KEY=%53" + "S" * 39,
    ],
)
def test_credentials_in_the_original_query_string(header: bytes, uri: str) -> None:
    assert read((header, uri.encode())).credentials == RIGHT


def test_without_a_proxy_the_query_string_of_the_request_itself_counts() -> None:
    assert read(query=QUERY.encode()).credentials == RIGHT
    assert read((b"x-forwarded-uri", b"/x"), query=QUERY.encode()).credentials == Reason.CREDENTIALS_MISSING


def test_each_credential_is_taken_from_the_headers_first() -> None:
    uri = (b"x-forwarded-uri", f"/x?X-NCP-APIGW-API-KEY-ID={'o' * 20}&X-NCP-APIGW-API-KEY={SECRET}".encode())
    assert read(ID_HEADER, uri).credentials == RIGHT
    assert read(*BOTH, uri).credentials == RIGHT


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [ID_HEADER],
        [SECRET_HEADER],
        [ID_HEADER, (b"x-ncp-apigw-api-key", b"")],
        [(b"x-ncp-apigw-api-key-id", b""), SECRET_HEADER],
        [(b"x-forwarded-uri", b"/x?X-NCP-APIGW-API-KEY-ID=&X-NCP-APIGW-API-KEY=")],
        [(b"x-forwarded-uri", b"/x?X-NCP-APIGW-API-KEY-ID&X-NCP-APIGW-API-KEY")],
        [(b"x-forwarded-uri", f"/x%3F{QUERY}".encode())],
    ],
)
def test_missing_or_empty_credentials(headers: Headers) -> None:
    assert read(*headers).credentials == Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "headers",
    [
        [*BOTH, (b"x-ncp-apigw-api-key", b"T" * 40)],
        [*BOTH, (b"x-ncp-apigw-api-key-id", b"")],
        [*BOTH, (b"x-ncp-apigw-api-key-id", b"x"), ID_HEADER],
        [(b"x-forwarded-uri", f"/x?{QUERY}&x-ncp-apigw-api-key=T".encode())],
    ],
)
def test_credentials_given_twice_with_different_values(headers: Headers) -> None:
    assert read(*headers).credentials == Reason.CREDENTIALS_TWICE


def test_credentials_given_twice_with_the_same_value() -> None:
    assert read(*BOTH, *BOTH).credentials == RIGHT


@pytest.mark.parametrize(
    ("client_id", "secret"),
    [(ID + "a", SECRET), (ID, SECRET + "S"), (ID[1:], SECRET), (ID, "S"), (ID * 5000, SECRET), (ID, SECRET * 2500)],
)
def test_credentials_of_another_length_are_wrong_without_more_work(client_id: str, secret: str) -> None:
    headers = (b"x-ncp-apigw-api-key-id", client_id.encode()), (b"x-ncp-apigw-api-key", secret.encode())
    assert read(*headers).credentials == Reason.CREDENTIALS_WRONG


def test_the_web_page_is_the_origin_or_the_referer() -> None:
    origin, referer = (b"origin", b"https://naver.com"), (b"referer", b"https://daum.net/x")
    assert read(*BOTH, origin, referer).web == "https://naver.com"
    assert read(*BOTH, referer).web == "https://daum.net/x"
    assert read(*BOTH, (b"origin", b"null"), referer).web == "https://daum.net/x"
    assert read(*BOTH, (b"origin", b"null")).web == "null"
    assert read(*BOTH, (b"origin", b"")).web == ""


def test_mobile_environments() -> None:
    call = read(*BOTH, (b"x-android-package", b"com.example"), (b"x-ios-bundle-identifier", b"com.example.ios"))
    assert (call.android, call.ios) == ("com.example", "com.example.ios")


@pytest.mark.parametrize("name", [b"origin", b"x-android-package", b"x-ios-bundle-identifier"])
def test_an_environment_given_twice_with_different_values_is_one_that_matches_nothing(name: bytes) -> None:
    call = read(*BOTH, (name, b"a"), (name, b"b"))
    assert "\x00" in (call.web, call.android, call.ios)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        (b"1", 1),
        (b"007", 7),
        (str(QUANTITY_MAX).encode(), QUANTITY_MAX),
        (str(QUANTITY_MAX + 1).encode(), 0),
        (b"0", 0),
        (b"-1", 0),
        (b"+1", 0),
        (b"1.5", 0),
        (b"1e3", 0),
        (b"1_0", 0),
        (b" 1", 0),
        (b"", 0),
        (b"9" * 5000, 0),
        ("١".encode(), 0),
    ],
)
def test_quantity(text: bytes, quantity: int) -> None:
    assert read(*BOTH, (b"x-tollbook-quantity", text)).quantity == quantity


def test_two_different_quantities_are_none() -> None:
    assert read(*BOTH, (b"x-tollbook-quantity", b"1"), (b"x-tollbook-quantity", b"2")).quantity == 0


NAMES = st.sampled_from(
    [
        b"x-ncp-apigw-api-key-id",
        b"x-ncp-apigw-api-key",
        b"x-forwarded-uri",
        b"x-original-uri",
        b"origin",
        b"referer",
        b"x-android-package",
        b"x-ios-bundle-identifier",
        b"x-tollbook-quantity",
    ]
)
PIECES = st.sampled_from(
    [b"?", b"&", b"=", b"%", b"%41", b"%zz", b"X-NCP-APIGW-API-KEY", b"x-ncp-apigw-api-key-id", b"#", ID.encode()]
)
VALUES = st.binary(max_size=60) | st.lists(PIECES | st.binary(max_size=5), max_size=12).map(b"".join)


@given(st.lists(st.tuples(NAMES | st.binary(max_size=10), VALUES), max_size=8), VALUES)
def test_whatever_comes_is_a_call(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    call = read_call(headers, query)
    assert 0 <= call.quantity <= QUANTITY_MAX
    if isinstance(call.credentials, Credentials):
        assert (len(call.credentials.client_id), len(call.credentials.secret)) == (20, 40)
