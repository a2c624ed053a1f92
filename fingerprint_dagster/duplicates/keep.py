"""Which copy of a cluster is the best one to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Literal, get_args

from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.sources.uri import file_path

Keep = Literal["largest", "smallest", "earliest", "latest", "first"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
DATES = ("created", "created_at", "published", "published_at", "date", "datetime", "timestamp", "time")
"""Metadata of a list that says when a content was made, the first of them that is there."""

Rank = Callable[[Fingerprint], tuple[object, ...]]


def keep_of(text: str) -> Keep:
    """The rule of that name. Raises `UsageError` that lists the rules there are."""
    for keep in KEEPS:
        if keep == text:
            return keep
    raise UsageError(f"unknown rule {text!r}; there are: {', '.join(KEEPS)}")


def best_first(keep: Keep, *, prefer: Sequence[str] = (), registered: Mapping[str, int] | None = None) -> Rank:
    """The key by which copies are sorted, the one to keep first.

    largest, smallest: by pixels (pictures, video), then seconds (audio, video), characters (text), and bytes.
    earliest, latest: by the date that its list gives (`DATES`, as ISO 8601 or Unix seconds), else by when the file was
    last changed; what has no date comes last. first: what was registered first.
    prefer: patterns such as `*/masters/*`; a path or uri that one of them fits comes before others, whatever the rule.
    registered: content_id -> its place in the order of registration, which decides among equals.
    """
    order = registered or {}

    def rank(content: Fingerprint) -> tuple[object, ...]:
        content_id = content.content.content_id
        tie = (order.get(content_id, len(order)), content_id)
        preferred = next((n for n, pattern in enumerate(prefer) if _fits(content, pattern)), len(prefer))
        if keep in ("largest", "smallest"):
            sign = -1 if keep == "largest" else 1
            return (preferred, *(sign * part for part in measure(content)), *tie)
        if keep in ("earliest", "latest"):
            moment = date_of(content)
            known = (1, 0.0) if moment is None else (0, moment if keep == "earliest" else -moment)
            return (preferred, *known, *tie)
        return (preferred, *tie)

    return rank


def measure(content: Fingerprint) -> tuple[float, float, float, float]:
    """How large a content is: pixels, seconds, characters, bytes; 0 where it has none."""
    info = content.sketch.info
    width, height, seconds, characters = (_number(info.get(n)) for n in ("width", "height", "duration", "characters"))
    return width * height, seconds, characters, float(content.size)


def date_of(content: Fingerprint) -> float | None:
    """When a content was made, in Unix seconds, as far as anything tells."""
    for name in DATES:
        moment = _moment(content.content.metadata.get(name))
        if moment is not None:
            return moment
    try:
        return file_path(content.content.uri).stat().st_mtime
    except (OSError, ValueError, UsageError):  # elsewhere, or no longer there
        return None


def _fits(content: Fingerprint, pattern: str) -> bool:
    uri = content.content.uri
    if fnmatchcase(uri, pattern):
        return True
    try:
        return fnmatchcase(str(file_path(uri)), pattern)
    except UsageError:
        return False


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _moment(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(str(value))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
