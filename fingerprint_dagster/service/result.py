"""What the service answers, as data and as a page of a notebook."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.errors import UsageError

SCHEME = "fp1"
_THUMBNAIL_PIXELS = 96

CacheLayer = Literal["memory", "memo"]


def fingerprint_text(content_type: str, key: str) -> str:
    """The identity of a fingerprint as text: `fp1:image:0123...`, whose last part is the memo key of its sketch.

    The key is made of the SHA-256 of the content's bytes and of the version and parameters of every stage. So two texts
    are equal if and only if the same bytes were fingerprinted by the same algorithms, on whatever machine. How much
    two contents are alike it does not tell: that is what a search is for.
    """
    return f"{SCHEME}:{content_type}:{key}"


@dataclass(frozen=True)
class FingerprintResult:
    """The service's answer for one content.

    content_url: the normalised uri. content_type: None where it could not be told.
    fingerprint: see `fingerprint_text`; empty where the content failed.
    processing_time_ms: from the call, or in a batch from when work on the content began, to the answer.
    cached: whether it was answered without decoding; layer: from where ("memory", or the shared "memo").
    record: the whole fingerprint, with all its components; None where the content failed, and where the caller of a
        batch did not want the records.
    error: why the content failed, stage: where, retryable: whether another try can help; error is None on success.
    """

    content_url: str
    content_type: str | None
    fingerprint: str = ""
    processing_time_ms: float = 0.0
    cached: bool = False
    layer: CacheLayer | None = None
    record: Fingerprint | None = field(default=None, repr=False)
    error: str | None = None
    stage: str | None = None
    retryable: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is a fingerprint."""
        return self.error is None

    @property
    def codes(self) -> dict[str, str]:
        """The fingerprint in the forms that other programs read (`pdq`, `iscc`, `chromaprint`), by their names."""
        if self.record is None:
            return {}
        from fingerprint_dagster.media.registry import content_type

        return content_type(self.record.content.content_type).interchange(self.record)

    def to_dict(self, *, record: bool = True) -> dict[str, Any]:
        """The answer as JSON data. record: with the whole record, of which long components are cut short."""
        from fingerprint_dagster.export import describe

        data: dict[str, Any] = {
            "content_url": self.content_url,
            "content_type": self.content_type,
            "fingerprint": self.fingerprint or None,
            "processing_time_ms": round(self.processing_time_ms, 3),
            "cached": self.cached,
        }
        if self.error is not None:
            data["error"] = {"stage": self.stage, "reason": self.error, "retryable": self.retryable}
        elif record and self.record is not None:
            data["record"] = describe(self.record)
        return data

    def _repr_html_(self) -> str:
        """The answer as a table, with the picture where it is one on this machine."""
        rows = {"content": _link(self.content_url), "type": html.escape(self.content_type or "unknown")}
        if self.error is not None:
            rows["failed"] = html.escape(f"{self.stage or ''}: {self.error}")
        else:
            rows["fingerprint"] = f"<code>{html.escape(self.fingerprint)}</code>"
            if self.record is not None:
                facts = {name: value for name, value in self.record.sketch.info.items() if value not in (None, "")}
                rows["media type"] = html.escape(f"{self.record.media_type}, {self.record.size:,} bytes")
                rows |= {html.escape(str(name)): html.escape(_short(value)) for name, value in facts.items()}
                rows["components"] = html.escape(
                    ", ".join(f"{each.algorithm} ({len(each.values)})" for each in self.record.sketch.components)
                )
        origin = f" (from the {self.layer})" if self.layer else ""
        rows["time"] = f"{self.processing_time_ms:.1f} ms{origin}"
        return _thumbnail(self.content_url, self.content_type) + _table(rows)


@dataclass(frozen=True)
class SearchResult:
    """What a content is a copy of: the matches, best first. Behaves like a sequence of `Match`."""

    query: Fingerprint = field(repr=False)
    matches: tuple[Match, ...]
    processing_time_ms: float

    def __len__(self) -> int:
        return len(self.matches)

    def __iter__(self) -> Iterator[Match]:
        return iter(self.matches)

    def __getitem__(self, index: int) -> Match:
        return self.matches[index]

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON data; a match as `fingerprint query --json` prints it."""
        from fingerprint_dagster.export import describe_match

        return {
            "query": self.query.content.uri,
            "content_type": self.query.content.content_type,
            "processing_time_ms": round(self.processing_time_ms, 3),
            "matches": [describe_match(match) for match in self.matches],
        }

    def _repr_html_(self) -> str:
        """The matches as a table, with the pictures that are on this machine."""
        from fingerprint_dagster.export import place_text

        query = self.query.content
        head = f"<p>{_thumbnail(query.uri, query.content_type)}{_link(query.uri)} is a copy of</p>"
        if not self.matches:
            return head + "<p>nothing that is stored</p>"
        names = ("", "content", "score", "confidence", "where in the query", "where in the reference", "evidence")
        cells = [
            [
                _thumbnail(match.reference.uri, match.reference.content_type),
                _link(match.reference.uri),
                f"{match.score:.3f}",
                "" if match.confidence is None else f"{match.confidence:.4f}",
                html.escape(place_text(match.query_range, match.query_box, query.content_type)),
                html.escape(place_text(match.reference_range, match.reference_box, match.reference.content_type)),
                html.escape(match.evidence),
            ]
            for match in self.matches
        ]
        titles = "".join(f"<th>{name}</th>" for name in names)
        rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in cells)
        return f"{head}<table><tr>{titles}</tr>{rows}</table>"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _link(uri: str) -> str:
    shown = html.escape(_short(uri))
    if uri.startswith(("http://", "https://")):
        return f'<a href="{html.escape(uri, quote=True)}">{shown}</a>'
    return shown


def _table(rows: dict[str, str]) -> str:
    body = "".join(f"<tr><th style='text-align:left'>{name}</th><td>{cell}</td></tr>" for name, cell in rows.items())
    return f"<table>{body}</table>"


def _thumbnail(uri: str, content_type: str | None) -> str:
    """A small picture to look at, where the content is a picture on this machine; else nothing."""
    if content_type != "image" or not uri.startswith("file:"):
        return ""
    from PIL import Image

    from fingerprint_dagster.sources.uri import file_path

    try:
        with Image.open(file_path(uri)) as image:
            image.draft("RGB", (_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
            image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
            data = io.BytesIO()
            image.convert("RGB").save(data, "JPEG", quality=80)
    except (OSError, ValueError, SyntaxError, UsageError, Image.DecompressionBombError):
        return ""  # Moved meanwhile, or of a format that PIL does not read: the table says enough.
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"/>'
