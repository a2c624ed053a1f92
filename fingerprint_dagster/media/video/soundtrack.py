"""The sound of a video, as the audio type has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fingerprint_dagster.content import Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.audio.decode import decode_soundtrack


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays {"samples": int16 [n], mono at 11,025 Hz}, and the info of audio's decoded value with `present` added.

    A video without sound, or whose sound cannot be decoded, has no samples, and the `reason` in the info. Never raises
    for the content.
    """
    try:
        value = decode_soundtrack(path)
    except ContentError as error:
        return {}, {"present": False, "reason": error.reason}
    if value is None:
        return {}, {"present": False, "reason": "there is no audio stream"}
    return {"samples": value.arrays["pcm"]}, {"present": True, **value.info}


def soundtrack(decoded: Value) -> Value | None:
    """What audio's embed and hash stages take: the sound of a decoded video, or None where it has none."""
    info = dict(decoded.info["soundtrack"])
    if not info.pop("present"):
        return None
    return Value({"pcm": decoded.arrays["samples"]}, info)
