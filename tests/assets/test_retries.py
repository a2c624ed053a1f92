"""A step is tried again after what passes by itself, later each time, and after nothing else."""

import errno
import sqlite3
from collections.abc import Iterator

import dagster as dg
import pytest

from fingerprint_dagster.assets import STAGE_ASSETS, retries
from fingerprint_dagster.assets.retries import WAITS, may_pass, retried
from fingerprint_dagster.errors import ContentError, FingerprintError, Unavailable, UsageError

PASSES = [
    Unavailable("the Redis server cannot be used"),
    ContentError("took too long", retryable=True),
    ConnectionResetError(),
    TimeoutError(),
    OSError(errno.ESTALE, "stale file handle"),
    sqlite3.OperationalError("database is locked"),
]
STAYS = [
    UsageError("there is no such model"),
    FingerprintError("the memo cannot be used: no space left"),
    OSError(errno.ENOSPC, "no space left on device"),
    PermissionError(errno.EACCES, "permission denied"),
    sqlite3.OperationalError("database or disk is full"),
    ValueError("a fault of the software"),
]


def attempts(error: Exception, times: int, *, generator: bool = False) -> tuple[int, bool, str]:
    """How often an asset is tried that raises the error so many times, whether it succeeds, and what is said if not."""
    tried = []

    def work() -> int:
        tried.append(1)
        if len(tried) <= times:
            raise error
        return 1

    def yields() -> Iterator[dg.Output[int]]:
        yield dg.Output(work())

    asset = dg.asset(name="work")(retried(yields if generator else work))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "WAITS", (0.01, 0.01, 0.01))
        result = dg.materialize([asset], instance=dg.DagsterInstance.ephemeral(), raise_on_error=False)
    failures = [event for event in result.all_events if event.is_step_failure]
    said = str(failures[0].event_specific_data.error) if failures else ""  # type: ignore[union-attr]
    return len(tried), result.success, said


@pytest.mark.parametrize("error", PASSES, ids=repr)
def test_what_passes_may_be_tried_again(error: Exception) -> None:
    assert may_pass(error)


@pytest.mark.parametrize("error", STAYS, ids=repr)
def test_what_needs_a_person_is_not(error: Exception) -> None:
    assert not may_pass(error)


@pytest.mark.parametrize("generator", [False, True])
def test_a_step_succeeds_when_the_server_is_back(generator: bool) -> None:
    assert attempts(Unavailable("away"), 2, generator=generator)[:2] == (3, True)


def test_a_step_is_given_up_when_the_server_stays_away() -> None:
    tried, success, _ = attempts(Unavailable("away"), 100)
    assert (tried, success) == (1 + len(WAITS), False)


@pytest.mark.parametrize("generator", [False, True])
def test_a_step_that_no_retry_can_help_fails_at_once_and_says_why(generator: bool) -> None:
    tried, success, said = attempts(ValueError("seven is no colour"), 1, generator=generator)
    assert (tried, success) == (1, False)
    assert "ValueError: seven is no colour" in said


def test_every_stage_is_tried_again_later_and_later() -> None:
    assert list(WAITS) == sorted(WAITS)
    assert WAITS[0] >= 1
    for asset in STAGE_ASSETS:
        assert isinstance(asset, dg.AssetsDefinition)
        # A policy of Dagster's would also try a run again that a person has stopped.
        assert asset.op.retry_policy is None
        assert hasattr(asset.op.compute_fn.decorated_fn, "__wrapped__")  # type: ignore[union-attr]
