from __future__ import annotations

from deploy.backoff import Backoff
from deploy.supervisor import last_error


def test_the_delay_doubles_up_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.after_end(0) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]


def test_a_healthy_minute_starts_it_anew() -> None:
    backoff = Backoff()
    for _ in range(1000):
        backoff.after_end(59.9)
    assert backoff.after_end(59.9) == 10
    assert backoff.after_end(60) == 0.2


def test_why_a_process_ended_is_the_last_error_that_it_told() -> None:
    lines = ["INFO starts", "ERROR the port is in use", "INFO Waiting for shutdown", "INFO Finished"]
    assert last_error(lines) == "ERROR the port is in use"
    assert last_error(["Traceback (most recent call last):", "  x", "ValueError: no", "INFO Finished"]) == "ValueError: no"
    assert last_error(["INFO Finished"]) == "INFO Finished"
    assert last_error([]) == "it gave no reason"
