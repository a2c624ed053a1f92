"""A fingerprint as one flat record: what a store keeps of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fingerprint_dagster.codec import decode, encode, sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint


def to_record(fingerprint: Fingerprint) -> dict[str, Any]:
    """Text, `size` in bytes, `metadata` as JSON text, and `payload`: the sketch as one safetensors file."""
    content = fingerprint.content
    return {
        "content_id": content.content_id,
        "uri": content.uri,
        "content_type": str(content.content_type),
        "digest": fingerprint.digest,
        "size": fingerprint.size,
        "media_type": fingerprint.media_type,
        "key": fingerprint.key,
        "metadata": json.dumps(dict(content.metadata), ensure_ascii=False, default=_plain),
        "payload": encode(sketch_to_value(fingerprint.sketch)),
    }


def from_record(record: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint that `to_record` was given."""
    content = Content(record["content_id"], record["uri"], record["content_type"], json.loads(record["metadata"]))
    sketch = value_to_sketch(decode(record["payload"]))
    return Fingerprint(content, record["digest"], record["size"], record["media_type"], record["key"], sketch)


def _plain(value: Any) -> Any:
    """A number of numpy as Python's; anything else JSON does not know (a date) as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
