"""/unsubscribe/{token}: where a mail's reader ends mails, without signing in (RFC 8058).

Only POST ends them: mail scanners open every link of a mail, so GET only shows the button.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from services.console.http.boundary import address_of
from services.console.http.pages import HEADERS, Words, language_of, page
from services.console.http.request import Behind, Services
from services.console.problems import RETRY_AFTER_S
from services.console.ratelimit import FailureLimit
from services.console.settings import Network
from shared.commands import contacts
from shared.errors import NotFound, Unavailable
from shared.events.alerts import Locale
from shared.ids import new_id

router = APIRouter(prefix="/unsubscribe", include_in_schema=False)

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,500}", re.ASCII)
"""What a token can look like. Only alerts can open one, and so tell whose it is."""

_ASK: Final[dict[Locale, Words]] = {
    "ko": Words("알림 메일 수신 거부", "이 주소로 더 이상 알림 메일을 보내지 않도록 합니다.", "수신 거부"),
    "en": Words("Unsubscribe", "No more notification mails will be sent to this address.", "Unsubscribe"),
}
_DONE: Final[dict[Locale, Words]] = {
    "ko": Words(
        "수신 거부되었습니다", "이 주소로 더 이상 알림 메일을 보내지 않습니다. 다시 받으려면 콘솔에서 주소를 다시 인증하세요."
    ),
    "en": Words(
        "You are unsubscribed", "No more notification mails go to this address. To get them again, verify it in the console."
    ),
}
_UNKNOWN: Final[dict[Locale, Words]] = {
    "ko": Words(
        "알 수 없는 링크입니다",
        "이 수신 거부 링크는 발급된 적이 없거나, 연락처가 이미 삭제되었습니다. 링크 전체를 복사했는지 확인하세요.",
    ),
    "en": Words(
        "This link is not known", "Nobody issued it, or the contact is gone already. See whether you have copied all of it."
    ),
}
_TOO_MANY: Final[dict[Locale, Words]] = {
    "ko": Words("시도가 너무 많습니다", "잠시 후 다시 시도하세요."),
    "en": Words("Too many attempts", "Try again in a minute."),
}
_AWAY: Final[dict[Locale, Words]] = {
    "ko": Words("지금은 처리할 수 없습니다", "alerts 서비스가 응답하지 않습니다. 잠시 후 다시 시도하세요.", "다시 시도"),
    "en": Words("This cannot be done now", "The service alerts does not answer. Try again in a moment.", "Try again"),
}


class Attempts:
    """How many links that nobody issued are borne from one address: as many as failed sign-ins, counted apart from them."""

    def __init__(self, monotonic: Callable[[], float], proxies: Sequence[Network]) -> None:
        self._failures = FailureLimit(monotonic)
        self._proxies = proxies

    def retry_after_s(self, request: Request) -> int:
        """Seconds until that client may try again; 0: it may."""
        return self._failures.retry_after_s(self._client(request))

    def failed(self, request: Request) -> None:
        """Count one that failed."""
        self._failures.failed(self._client(request))

    def _client(self, request: Request) -> str:
        return address_of(dict(request.scope), request.headers, self._proxies)


def _attempts(request: Request) -> Attempts:
    attempts: Attempts = request.app.state.attempts
    return attempts


def _language(request: Request) -> Locale:
    return language_of(",".join(request.headers.getlist("accept-language")))


Reader = Annotated[Locale, Depends(_language)]


@router.get("/{token}")
async def ask_to_unsubscribe(token: str, locale: Reader) -> HTMLResponse:
    """The page with the button. Whether the token was issued only the button's answer says."""
    return _answer(_ASK, locale) if _TOKEN.fullmatch(token) else _answer(_UNKNOWN, locale, 404)


@router.post("/{token}")
async def unsubscribe(
    request: Request, behind: Behind, attempts: Annotated[Attempts, Depends(_attempts)], token: str, locale: Reader
) -> HTMLResponse:
    """End mails to the address that the token is about. Again changes nothing. What the body says does not matter."""
    wait_s = attempts.retry_after_s(request)
    if wait_s:
        return _answer(_TOO_MANY, locale, 429, wait_s)
    try:
        ended = await _end(behind, token)
    except Unavailable:
        return _answer(_AWAY, locale, 503, RETRY_AFTER_S)
    if not ended:
        attempts.failed(request)
        return _answer(_UNKNOWN, locale, 404)
    return _answer(_DONE, locale)


async def _end(behind: Services, token: str) -> bool:
    """Whether mails are ended: nobody issued any other token, or the contact is gone."""
    if not _TOKEN.fullmatch(token):
        return False
    # A new wish each time: who has verified the address again may end mails again, by the same link.
    command = contacts.Unsubscribe(command_id=new_id(), token=token)
    try:
        await behind.ask(contacts.SERVICE, command, contacts.Unsubscribed)
    except NotFound:
        return False
    return True


def _answer(
    words: dict[Locale, Words], locale: Locale, status: int = 200, retry_after_s: int | str | None = None
) -> HTMLResponse:
    headers = {**HEADERS, "Content-Language": locale}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return HTMLResponse(page(words[locale], locale), status, headers)
