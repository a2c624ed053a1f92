"""The audio content type: sound files and the soundtracks of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fingerprint_dagster.content import Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.audio import alignment, match, sketch
from fingerprint_dagster.media.plugin import ContentTypePlugin

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime


class AudioPlugin(ContentTypePlugin):
    """Sound: window vectors and landmarks for looking up, Chromaprint and landmarks for comparing."""

    name = "audio"
    extensions = frozenset(
        {
            *(
                ".aac",
                ".ac3",
                ".aif",
                ".aifc",
                ".aiff",
                ".amr",
                ".ape",
                ".au",
                ".caf",
                ".dts",
                ".eac3",
                ".flac",
                ".m4a",
            ),
            *(".m4b", ".mka", ".mp2", ".mp3", ".mpc", ".oga", ".ogg", ".opus", ".spx", ".tta", ".w64", ".wav", ".wma"),
            *(".wv",),
        }
    )
    batch_size = 200
    versions: ClassVar[Mapping[str, str]] = {
        "decode": "audio_mono11025_v2",
        "embed": "log_spectrum_v1",
        "hash": "sound_v2",
    }

    thresholds: ClassVar[Mapping[str, float]] = {
        sketch.CHROMAPRINT: match.LEAST_STRENGTH,
        sketch.LANDMARKS: alignment.LEAST_EVIDENCE,
    }

    def sniff(self, head: bytes) -> str | None:
        """The media type of sound, and of video containers too: see `decode.sniff_audio`."""
        from fingerprint_dagster.media.audio.decode import sniff_audio

        return sniff_audio(head)

    def decode(self, path: Path) -> Value:
        """Mono PCM at 11,025 Hz: see `decode.decode_audio`."""
        from fingerprint_dagster.media.audio.decode import decode_audio

        return decode_audio(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """Landmarks, and the signs of one vector for each second: see `sketch.embed_audio`."""
        from fingerprint_dagster.media.audio.sketch import embed_audio

        return embed_audio(decoded, models)

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """Chromaprint items and tokens, landmarks and triples of them, window vectors: see `sketch.sketch_audio`."""
        from fingerprint_dagster.media.audio.sketch import sketch_audio

        return sketch_audio(decoded, embedded)

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """Every part of the query found in the reference, in seconds on both sides: see `sketch.match_audio`."""
        from fingerprint_dagster.media.audio.sketch import match_audio

        return match_audio(query, reference)

    def strengths(self, query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
        """In nats, by Chromaprints and by landmarks: see `sketch.strengths_audio`."""
        from fingerprint_dagster.media.audio.sketch import strengths_audio

        return strengths_audio(query, reference)

    def interchange(self, fingerprint: Fingerprint) -> dict[str, str]:
        """`chromaprint`: what fpcalc prints and AcoustID takes; `iscc`: the Audio-Code."""
        from fingerprint_dagster.media.audio.chromaprint import compress_v1
        from fingerprint_dagster.media.audio.iscc import iscc_audio_v0
        from fingerprint_dagster.media.audio.sketch import CHROMAPRINT

        component = fingerprint.component(CHROMAPRINT)
        if component is None:
            return {}
        items = component.values.astype("uint32")
        return {"chromaprint": compress_v1(items), "iscc": iscc_audio_v0(items)[1]}
