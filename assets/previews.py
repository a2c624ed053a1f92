"""What a person sees of a batch in the Dagster UI: a table of examples and a strip of thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import dagster as dg

from fingerprint_dagster.content import Sketch, Value
from fingerprint_dagster.pipeline import Pipeline
from fingerprint_dagster.sources.uri import readable
from fingerprint_dagster.stages import Entry, StageResult

THUMBNAIL_PIXELS = 96
EXAMPLES = 8


def example_table(examples: Sequence[tuple[Entry, Sketch]]) -> dg.MetadataValue[Any]:
    """A few fingerprints: name, media type, the rows of each component, and what is known of the content."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "content": _name(entry),
                    "media type": entry.media_type,
                    "components": ", ".join(f"{each.algorithm} x {len(each.values)}" for each in sketch.components),
                    "info": ", ".join(f"{name} {value}" for name, value in sketch.info.items()),
                }
            )
            for entry, sketch in examples
        ]
    )


def stored_table(result: StageResult) -> dict[str, Any]:
    """A few of the stored contents, or nothing where none passed."""
    records = [
        dg.TableRecord({"content_id": entry.content.content_id, "content": _name(entry), "bytes": entry.size})
        for entry in result.passed[:EXAMPLES]
    ]
    return {"examples": dg.MetadataValue.table(records)} if records else {}


def changed_table(result: StageResult, changed: Sequence[str]) -> dict[str, Any]:
    """A few of the contents that were stored with other bytes before, or nothing where there are none."""
    names = {entry.content.content_id: entry for entry in result.passed}
    records = [
        dg.TableRecord({"content_id": each, "content": readable(names[each].content.uri)})
        for each in changed[:EXAMPLES]
    ]
    return {"changed_contents": dg.MetadataValue.table(records)} if records else {}


def thumbnail_strip(pipeline: Pipeline, entries: Sequence[Entry]) -> dict[str, Any]:
    """Small pictures of contents that have any (images, the middle frames of videos), side by side, as Markdown.

    Only of contents whose decoded arrays are still in the memo: a preview is not worth decoding anew.
    """
    pictures = [_picture(value) for value in pipeline.decoded(entries)]
    shown = [f"![thumbnail](data:image/jpeg;base64,{picture})" for picture in pictures if picture is not None]
    return {"thumbnails": dg.MetadataValue.md(" ".join(shown))} if shown else {}


def _picture(decoded: Value) -> str | None:
    """A JPEG thumbnail of decoded RGB, base64; None for content without pixels."""
    from PIL import Image

    if "rgb" in decoded.arrays:
        pixels = decoded.arrays["rgb"]
    elif "frames" in decoded.arrays and len(decoded.arrays["frames"]):
        frames = decoded.arrays["frames"]
        pixels = frames[len(frames) // 2]
    else:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode()


def _name(entry: Entry) -> str:
    return readable(entry.content.uri).rpartition("/")[2]
