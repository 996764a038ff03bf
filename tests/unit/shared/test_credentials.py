"""The verifier of a Client Secret."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from pydantic import SecretStr

from shared.credentials import read_pepper, verified, verifier

PEPPER = bytes(range(32))


def test_it_is_the_hmac_of_client_id_and_secret() -> None:
    expected = hmac.new(PEPPER, b"id:secret", hashlib.sha256).hexdigest()
    assert verifier(PEPPER, "id", "secret") == expected
    assert verified(expected, verifier(PEPPER, "id", "secret"))


def test_another_pepper_client_or_secret_gives_another() -> None:
    given = {
        verifier(pepper, id_, secret) for pepper in (PEPPER, b"x" * 32) for id_ in ("a", "b") for secret in ("c", "d", "\ud800")
    }
    assert len(given) == 12
    assert not verified(verifier(PEPPER, "a", "c"), verifier(PEPPER, "a", "d"))


@pytest.mark.parametrize(
    "text", ["", "zz", "ab" * 31, "ab" * 31 + "a", "not hex, but long enough to be a pepper, one would think"]
)
def test_a_pepper_that_is_none_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="TOLLBOOK_PEPPER: must be 64 hexadecimal digits") as refused:
        read_pepper(SecretStr(text))
    assert not text or text not in str(refused.value)
    assert read_pepper(SecretStr("ab" * 32)) == b"\xab" * 32
