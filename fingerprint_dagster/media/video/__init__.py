"""Video: sampled frames with their times, hashed and described as pictures are, and the soundtrack as sound is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint_dagster.content import Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.audio import AudioPlugin
from fingerprint_dagster.media.image.network import NetworkPlugin
from fingerprint_dagster.media.video import alignment, match, regions, sketch, vpdq
from fingerprint_dagster.media.video.sniff import sniff

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime


class VideoPlugin(NetworkPlugin):
    """Video files: copies, excerpts and what several of them share, with times on both sides; pictures and sounds too.

    embed, hash: see `sketch.embed` and `sketch.sketch`; match: see `match.match`.
    """

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
        "decode": "video_frames_v3",
        "embed": "video_descriptors_v1+" + AudioPlugin.versions["embed"],
        "hash": "video_sketch_v1+" + AudioPlugin.versions["hash"],
    }
    also_matches = frozenset({"image", "audio"})
    thresholds: ClassVar[Mapping[str, float]] = {
        match.FRAMES: alignment.MIN_EVIDENCE,
        match.REGIONS: regions.MIN_PROOF,
    }

    def sniff(self, head: bytes) -> str | None:
        """The media type of a video file or an animated picture: see `sniff.sniff`."""
        return sniff(head)

    def decode(self, path: Path) -> Value:
        """Frames about a second apart, their times, shots and borders, and the soundtrack: see `decode.decode`."""
        from fingerprint_dagster.media.video.decode import decode

        return decode(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """A descriptor of every frame, and the landmarks and window vectors of the soundtrack."""
        return sketch.embed(decoded, models, self._model)

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """PDQ hashes, descriptors and local features with their times, and the components of the soundtrack."""
        return sketch.sketch(decoded, embedded)

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """The stretches of the query that are in the reference: frames, regions of frames, sound, single pictures."""
        return match.match(query, reference)

    def strengths(self, query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
        """See `match.strengths`."""
        return match.strengths(query, reference)

    def interchange(self, fingerprint: Fingerprint) -> dict[str, str]:
        """`vpdq`: number, quality, hash and seconds of each frame, as vPDQ's tools read them."""
        return {"vpdq": vpdq.of(fingerprint)}
