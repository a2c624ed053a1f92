"""The kinds of failure: of one content, of a request that cannot be understood, of a server that is away."""


class FingerprintError(Exception):
    """Base of every error this package raises on purpose.

    retryable: whether the same may work in a minute, with nothing done about it.
    """

    retryable: bool = False


class Unavailable(FingerprintError):
    """A server that does not answer now."""

    retryable = True


class ContentError(FingerprintError):
    """One content failed in one stage. It goes to quarantine; its batch goes on.

    reason: one line for a person: what is wrong with this content, and the cure where there is one.
    retryable: True where the same bytes or the same address may work later (time-out, refused
        connection, busy server); False where only a change of the content or of the software helps.
    """

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason, retryable)
        self.reason = " ".join(reason.split())
        self.retryable = retryable
        self.stage: str | None = None  # Filled in by the pipeline: the stage that raised it.

    def __str__(self) -> str:
        return self.reason

    def __reduce__(self) -> tuple[object, ...]:
        return _content_error, (self.reason, self.retryable, self.stage)


def _content_error(reason: str, retryable: bool, stage: str | None) -> ContentError:
    error = ContentError(reason, retryable=retryable)
    error.stage = stage
    return error


class UsageError(FingerprintError):
    """A wrong option, list, setting or home. The command line prints it as one line and exits with 2."""
