"""When a step is tried again: after what passes by itself, with longer and longer waits, and after nothing else."""

from __future__ import annotations

import errno
import functools
import inspect
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import dagster as dg

from fingerprint_dagster.errors import FingerprintError

# Seconds before each new try, and by chance up to half more or less: what failed together comes back apart. A retry
# policy of Dagster's would try a run again that a person has stopped.
WAITS = (5.0, 15.0, 35.0)

_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    getattr(errno, "ESTALE", errno.EIO),
}


def may_pass(error: BaseException) -> bool:
    """Whether the same step may work in a minute: a server is away, a file system or a database is busy.

    Not so a full disk, a wrong setting or a fault of the software: they need a person.
    """
    if isinstance(error, FingerprintError):
        return error.retryable
    if isinstance(error, sqlite3.OperationalError):
        return "locked" in str(error) or "busy" in str(error)
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in _PASSING
    # What clients of databases call a server that is away: psycopg.OperationalError, sqlalchemy.exc.OperationalError.
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def retried(work: Callable[..., Any]) -> Callable[..., Any]:
    """A stage's function, or generator, that is tried again after errors that may pass, and after no others."""
    if inspect.isgeneratorfunction(work):

        @functools.wraps(work)
        def generate(*arguments: Any, **named: Any) -> Any:
            try:
                yield from work(*arguments, **named)
            except Exception as error:
                raise _again(error) from error

        return generate

    @functools.wraps(work)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return work(*arguments, **named)
        except Exception as error:
            raise _again(error) from error

    return call


def _again(error: Exception) -> Exception:
    """What to raise for `error`: itself, or that the step is to be tried again."""
    attempt = dg.AssetExecutionContext.get().op_execution_context.retry_number
    if not may_pass(error) or attempt >= len(WAITS):
        return error
    return dg.RetryRequested(max_retries=len(WAITS), seconds_to_wait=WAITS[attempt] * random.uniform(0.5, 1.5))
