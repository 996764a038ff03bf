"""Reissuing and revoking secrets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from services.registry.domain import App, evolve_app, reissue_secret, revoke_secret, vault_id
from shared.commands.registry import ReissueSecret, RevokeSecret
from shared.errors import NotFound
from shared.events.registry import AppDeleted, SecretIssued, SecretReissued, SecretRevoked
from tests.support.registry_examples import (
    ACCOUNT,
    CLIENT_ID,
    FIRST,
    NOW,
    RULES,
    SECOND,
    SECRET,
    THIRD,
    command,
    new_secret,
    registered,
)
from tests.support.scenario import Outcome, Scenario

APPS: Scenario[App | None] = Scenario(None, evolve_app)
DELETED = AppDeleted(account=ACCOUNT, client_id=CLIENT_ID)
HOUR = timedelta(hours=1)


def reissued(secret_id: str, until: datetime | None) -> SecretReissued:
    secret = SecretIssued(secret_id, "bb" * 32)
    return SecretReissued(account=ACCOUNT, client_id=CLIENT_ID, secret=secret, previous_valid_until=until)


def revoked(secret_id: str) -> SecretRevoked:
    return SecretRevoked(account=ACCOUNT, client_id=CLIENT_ID, secret_id=secret_id)


def reissue(*past: Any, grace: int = 0, secret_id: str = SECOND, now: datetime = NOW) -> Outcome[App | None]:
    asked = command(ReissueSecret, client_id=CLIENT_ID, grace_seconds=grace)
    return APPS.given(*past).when(lambda state: reissue_secret(state, now, asked, RULES, new_secret(secret_id)))


def revoke(*past: Any, secret_id: str = FIRST, now: datetime = NOW) -> Outcome[App | None]:
    asked = command(RevokeSecret, client_id=CLIENT_ID, secret_id=secret_id)
    return APPS.given(*past).when(lambda state: revoke_secret(state, now, asked))


def test_a_reissue_ends_the_secret_before_it() -> None:
    decision = reissue(registered()).then(reissued(SECOND, None))
    assert decision.shred == [vault_id(CLIENT_ID, FIRST)]
    assert decision.seal == {vault_id(CLIENT_ID, SECOND): SECRET.encode()}
    assert decision.reveals == vault_id(CLIENT_ID, SECOND)
    assert decision.reply.previous_valid_until is None


def test_in_the_grace_period_both_work() -> None:
    decision = reissue(registered(), grace=3600).then(reissued(SECOND, NOW + HOUR))
    assert decision.shred == []
    assert decision.reply.previous_valid_until == NOW + HOUR


def test_at_most_two_work_at_once() -> None:
    decision = reissue(registered(), reissued(SECOND, NOW + HOUR), grace=60, secret_id=THIRD).then(
        revoked(FIRST), reissued(THIRD, NOW + timedelta(seconds=60))
    )
    assert decision.shred == [vault_id(CLIENT_ID, FIRST)]


def test_an_expired_one_does_not_come_back_to_life() -> None:
    late = NOW + 2 * HOUR
    reissue(registered(), reissued(SECOND, NOW + HOUR), grace=3600, secret_id=THIRD, now=late).then(
        revoked(FIRST), reissued(THIRD, late + HOUR)
    )


def test_a_grace_period_is_never_made_longer() -> None:
    past = (registered(), reissued(SECOND, NOW + HOUR), revoked(SECOND))
    reissue(*past, grace=86_400, secret_id=THIRD).then(reissued(THIRD, NOW + HOUR))


def test_a_reissue_after_the_last_one_was_revoked() -> None:
    decision = reissue(registered(), revoked(FIRST), grace=3600).then(reissued(SECOND, None))
    assert decision.shred == []


def test_a_revoked_secret_ends_at_once() -> None:
    decision = revoke(registered(), reissued(SECOND, NOW + HOUR)).then(revoked(FIRST))
    assert decision.shred == [vault_id(CLIENT_ID, FIRST)]
    assert decision.reply.secret_ids == (SECOND,)


def test_the_only_secret_can_be_revoked() -> None:
    assert revoke(registered()).then(revoked(FIRST)).reply.secret_ids == ()


def test_revoking_again_changes_nothing() -> None:
    assert revoke(registered(), reissued(SECOND, None)).then_nothing().reply.secret_ids == (SECOND,)
    assert revoke(registered(), revoked(FIRST)).then_nothing().reply.secret_ids == ()


def test_an_unknown_secret_cannot_be_revoked() -> None:
    revoke(registered(), secret_id=THIRD).refused(NotFound, says="no such secret")


@pytest.mark.parametrize("past", [(), (registered(account="other"),), (registered(), DELETED)])
def test_only_ones_own_secrets_are_there(past: tuple[Any, ...]) -> None:
    reissue(*past).refused(NotFound)
    revoke(*past).refused(NotFound)


def test_an_expired_one_is_no_previous_one() -> None:
    past = (registered(), reissued(SECOND, NOW + HOUR), revoked(SECOND))
    decision = reissue(*past, grace=3600, secret_id=THIRD, now=NOW + 2 * HOUR).then(reissued(THIRD, None))
    assert decision.shred == [vault_id(CLIENT_ID, FIRST)]
