"""Where an application runs: web sites, Android packages, iOS bundles. Grammar, reduction and matching; pure.

The registry reduces what customers enter; the gate reduces what callers present and compares. A web environment is reduced to
its main domain (the registrable domain by the Public Suffix List), so scheme, `www.`, port, path and sub-domain make no
difference: `https://dev.naver.com:8443/x` and `http://naver.com` are the same environment, `naver.com`.

Reduced forms of web environments: a main domain in lower-case ASCII (`xn--...` when internationalised), an IPv4 address, an IPv6
address in brackets, `localhost`, or `file:` for pages that are opened from files (hybrid apps).
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import idna
from publicsuffixlist import PublicSuffixList

ENTRIES_MAX: Final = 10
"""Environments of one kind that an application may have."""
URL_LENGTH_MAX: Final = 2048
ANDROID_LENGTH_MAX: Final = 223
"""Android's own limit: the package name becomes a folder's name with a suffix."""
IOS_LENGTH_MAX: Final = 155
"""Apple's limit for a bundle ID."""
HOST_LENGTH_MAX: Final = 253
FILE: Final = "file:"
LOCALHOST: Final = "localhost"
CACHE_ENTRIES: Final = 16_384

_SEGMENT: Final = r"[A-Za-z][A-Za-z0-9_]*"
_BUNDLE: Final = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
WEB_SCHEMA: Final = {"minLength": 1, "maxLength": URL_LENGTH_MAX}
ANDROID_SCHEMA: Final = {"pattern": rf"^{_SEGMENT}(\.{_SEGMENT})+$", "maxLength": ANDROID_LENGTH_MAX}
IOS_SCHEMA: Final = {"pattern": f"^{_BUNDLE}$", "maxLength": IOS_LENGTH_MAX}
"""For JSON Schema: what the functions below let pass, but for spaces around it."""

_URL = re.compile(r"(https?|file):(//)?([^/?#\\]*)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d)")
_UNWANTED = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_STRICT_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC_LABEL = re.compile(r"\d+|0x[0-9a-f]*")
_ANDROID_SEGMENT = re.compile(_SEGMENT)
_IOS = re.compile(_BUNDLE)

_EXAMPLE: Final = "Enter a main domain, for example http://naver.com."


class EnvironmentProblem(ValueError):
    """An environment that cannot be registered: `problem` says what is wrong with it, `hint` the way out."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def reduce_web_url(entered: str) -> str:
    """The reduced form of a web environment as a customer enters it: an http, https or file URL, or a reduced form itself.

    Raises EnvironmentProblem.
    """
    text = entered.strip(" ")
    if not text:
        raise EnvironmentProblem("The URL is empty.", _EXAMPLE)
    if len(text) > URL_LENGTH_MAX:
        raise EnvironmentProblem(f"The URL is longer than {URL_LENGTH_MAX} characters.", _EXAMPLE)
    if (_CONTROL if text[:5].lower() == FILE else _UNWANTED).search(text):
        raise EnvironmentProblem("The URL has a space or a control character in it.", _EXAMPLE)
    if _URL.match(text) is None:
        return _reduced_already(text)
    host = _host_of(text)
    return FILE if host is None else _main_domain(host, strict=True)


def reduce_web(presented: str) -> str | None:
    """The reduced form of an Origin or Referer header, or None when it is of no kind that can be registered. Never raises.

    An Origin of `null` is what browsers send for pages opened from files, so it is `file:`. Fast: main domains are remembered for
    the last 16,384 hosts. The first call reads the Public Suffix List (about 0.2 s).
    """
    if presented == "null":
        return FILE
    if len(presented) > URL_LENGTH_MAX * 4:
        return None
    try:
        host = _host_of(presented)
        return FILE if host is None else _presented_main_domain(host)
    except EnvironmentProblem:
        return None


def web_matches(registered: Iterable[str], presented: str) -> bool:
    """Whether an Origin or Referer belongs to one of the registered (reduced) web environments."""
    reduced = reduce_web(presented)
    return reduced is not None and reduced in registered


def reduce_android(entered: str) -> str:
    """An Android package name, checked by the rule of Android's own build tools; case matters. Raises EnvironmentProblem.

    Java's keywords are allowed, as Android allows them in an application ID.
    """
    text = entered.strip(" ")
    if len(text) > ANDROID_LENGTH_MAX:
        raise EnvironmentProblem(f"The package name is longer than {ANDROID_LENGTH_MAX} characters.", "Check the package name.")
    segments = text.split(".")
    if not all(_ANDROID_SEGMENT.fullmatch(segment) for segment in segments):
        raise EnvironmentProblem(
            "This is not an Android package name.",
            "Each part between dots begins with a letter a-z or A-Z, then letters, digits and underscores: com.example.app.",
        )
    if len(segments) < 2:
        raise EnvironmentProblem("An Android package name has two parts or more.", "Enter it whole, for example com.example.app.")
    return text


def android_matches(registered: Iterable[str], presented: str) -> bool:
    """Whether a presented package name is one of the registered ones; case matters."""
    return presented in registered


def reduce_ios(entered: str) -> str:
    """An iOS bundle ID, checked by Apple's rule. Raises EnvironmentProblem."""
    text = entered.strip(" ")
    if len(text) > IOS_LENGTH_MAX:
        raise EnvironmentProblem(f"The bundle ID is longer than {IOS_LENGTH_MAX} characters.", "Check the bundle ID.")
    if not _IOS.fullmatch(text):
        raise EnvironmentProblem(
            "This is not an iOS bundle ID.",
            "Letters a-z and A-Z, digits, hyphens, and dots between them, without wildcards: com.example.app.",
        )
    return text


def ios_matches(registered: Iterable[str], presented: str) -> bool:
    """Whether a presented bundle ID is one of the registered ones. Apple: bundle IDs are case-insensitive."""
    lowered = presented.lower()
    return any(bundle_id.lower() == lowered for bundle_id in registered)


def reduce_all(entered: Sequence[str], reduce: Callable[[str], str]) -> tuple[str, ...]:
    """Each entry reduced, in the order entered, repetitions folded (without regard to case). Raises EnvironmentProblem.

    Android names that differ in case alone are two different packages, and stay two.
    """
    folded: dict[str, str] = {}
    for entry in entered:
        reduced = reduce(entry)
        folded.setdefault(reduced if reduce is reduce_android else reduced.lower(), reduced)
    return tuple(folded.values())


def _host_of(url: str) -> str | None:
    """The host of an http or https URL as written, without port and trailing dot; None for a file URL."""
    found = _URL.match(url)
    if found is None:
        raise EnvironmentProblem("The URL does not begin with http://, https:// or file:.", _EXAMPLE)
    scheme, slashes, authority = found.groups()
    if scheme.lower() == "file":
        return None
    if not slashes:
        raise EnvironmentProblem("The URL has no // after its scheme.", _EXAMPLE)
    if "@" in authority:
        raise EnvironmentProblem("The URL has a user name or password in it.", "Remove everything up to the @.")
    host, port = _split_port(authority)
    if port and (not port.isascii() or not port.isdecimal() or int(port[:6]) > 65535):
        raise EnvironmentProblem("The URL's port is not a number from 0 to 65535.", "Leave the port out: it makes no difference.")
    if not host or host == ".":
        raise EnvironmentProblem("The URL has no host.", _EXAMPLE)
    return host


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, closed, rest = authority.partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise EnvironmentProblem("The IPv6 address is not closed with ].", "Write it like http://[2001:db8::1].")
        return host + closed, rest[1:]
    host, _, port = authority.partition(":")
    return host, port


def _main_domain(host: str, *, strict: bool) -> str:
    """The reduced form of a host. `strict` refuses labels that exist in sub-domains' practice but cannot be registered."""
    if host.startswith("["):
        return _ipv6(host)
    ascii_host = _ascii_host(host, strict=strict)
    labels = ascii_host.split(".")
    if labels[-1] == LOCALHOST:
        return LOCALHOST
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        return _ipv4(ascii_host)
    if len(labels) == 1 and strict:
        raise EnvironmentProblem("The host has no dot, so it is not a main domain.", _EXAMPLE)
    main: str | None = _public_suffixes().privatesuffix(ascii_host)
    if main is None:
        raise EnvironmentProblem(
            "This is a public suffix, under which anybody may register a name, not a domain of yours.",
            "Enter your own domain below it, for example http://example.co.kr.",
        )
    if strict and not all(_STRICT_LABEL.fullmatch(label) for label in main.split(".")):
        raise EnvironmentProblem("This is not a domain name.", "Letters, digits and hyphens between the dots: http://naver.com.")
    return main


def _ascii_host(host: str, *, strict: bool) -> str:
    if host.isascii():
        mapped = host.lower()
    else:
        try:
            mapped = idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
        except (UnicodeError, ValueError, IndexError) as error:
            raise EnvironmentProblem("This is not an internationalised domain name.", "Check its spelling.") from error
    mapped = mapped.removesuffix(".")
    labels = mapped.split(".")
    if len(mapped) > HOST_LENGTH_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise EnvironmentProblem("This is not a domain name.", "Letters, digits and hyphens between the dots: http://naver.com.")
    if strict:
        for label in labels:
            _check_a_label(label)
    return mapped


def _check_a_label(label: str) -> None:
    if label.startswith("xn--"):
        try:
            idna.ulabel(label)
        except (UnicodeError, ValueError, IndexError) as error:
            raise EnvironmentProblem("A part with xn-- is not valid Punycode.", "Enter the domain as it is read.") from error


def _ipv4(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError as error:
        raise EnvironmentProblem("This is neither a domain name nor an IP address.", "Write it like http://192.0.2.1.") from error


def _ipv6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host[1:-1])
    except ValueError as error:
        raise EnvironmentProblem("This is not an IPv6 address.", "Write it like http://[2001:db8::1].") from error
    if address.scope_id is not None:
        raise EnvironmentProblem("The IPv6 address has a zone.", "Leave out the % and what follows.")
    if address.ipv4_mapped is not None:  # written differently by different Pythons; browsers write it so
        high, low = divmod(int(address.ipv4_mapped), 65536)
        return f"[::ffff:{high:x}:{low:x}]"
    return f"[{address}]"


def _reduced_already(text: str) -> str:
    """What this module gives out can be entered again: an application's environments can be sent back as they were read."""
    if not _SCHEME.match(text):
        try:
            reduced = _main_domain(_host_of(f"http://{text}") or "", strict=True)
        except EnvironmentProblem:
            reduced = ""
        if reduced == text:
            return reduced
    raise EnvironmentProblem("The URL does not begin with http://, https:// or file:.", _EXAMPLE)


@functools.lru_cache(maxsize=CACHE_ENTRIES)
def _presented_main_domain(host: str) -> str | None:
    try:
        return _main_domain(host, strict=False)
    except EnvironmentProblem:
        return None


@functools.cache
def _public_suffixes() -> PublicSuffixList:
    """The list as packaged; an unknown top-level domain counts as a public suffix, as the list's own rule says."""
    return PublicSuffixList()
