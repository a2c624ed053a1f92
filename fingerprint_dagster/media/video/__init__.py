"""Video: sampled frames with their times, hashed with PDQ and described with EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint_dagster.content import Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.video.sniff import sniff

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime


class VideoPlugin(ContentTypePlugin):
    """Video files: whole copies, excerpts, and what several of them share, with times on both sides."""

    name = "video"
    # fmt: off
    extensions = frozenset({
        ".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".h264", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v",
        ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".rm", ".rmvb", ".swf",
        ".ts", ".vob", ".webm", ".wmv", ".y4m",
    })
    # fmt: on
    batch_size = 50
    versions: ClassVar[Mapping[str, str]] = {
        "decode": "video_frames_v1",
        "embed": "efficientnet_lite0_gem_v2",
        "hash": "video_pdq_v1",
    }

    def sniff(self, head: bytes) -> str | None:
        """The media type, by the first bytes."""
        return sniff(head)

    def decode(self, path: Path) -> Value:
        """Frames about a second apart, and their times."""
        from fingerprint_dagster.media.video.decode import decode

        return decode(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """A vector for every frame."""
        from fingerprint_dagster.media.video.sketch import embed

        return embed(decoded, models)

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """PDQ hashes, their qualities and the vectors, each with its time."""
        from fingerprint_dagster.media.video.sketch import sketch

        return sketch(decoded, embedded)

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """The stretches of the query that are in the reference."""
        from fingerprint_dagster.media.video.match import match

        return match(query, reference)
