"""A fingerprint as one flat record: what a store keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fingerprint_dagster.codec import decode, encode, sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint, Sketch

# Of the parts that `found_by` reads, in safetensors' words.
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "U64": np.dtype("<u8"),
    "F32": np.dtype("<f4"),
    "BOOL": np.dtype(bool),
}


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
    """The fingerprint that `to_record` was given; its sketch is empty where there is no payload."""
    content = Content(record["content_id"], record["uri"], record["content_type"], json.loads(record["metadata"]))
    sketch = value_to_sketch(decode(record["payload"])) if "payload" in record else Sketch(())
    return Fingerprint(content, record["digest"], record["size"], record["media_type"], record["key"], sketch)


def found_by(payload: bytes) -> Iterator[tuple[str, str, np.ndarray]]:
    """Kind, algorithm and rows of what others find the content by: uint8 or float32 [n, width], or tokens uint64 [n].

    The searchable rows of the decoded sketch, but reads no other part of the payload and copies nothing.
    """
    size = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:size])

    def array(name: str) -> np.ndarray:
        told = header[name]
        first, last = told["data_offsets"]
        dtype = _DTYPES[told["dtype"]]
        return np.frombuffer(payload, dtype, (last - first) // dtype.itemsize, size + first).reshape(told["shape"])

    for algorithm, kind in json.loads(header["__metadata__"]["info"])["kinds"].items():
        if kind != "data":
            rows = array(f"{algorithm}/values")
            if f"{algorithm}/searchable" in header:
                rows = rows[array(f"{algorithm}/searchable")]
            if len(rows):
                yield kind, algorithm, rows


def _plain(value: Any) -> Any:
    """A number of numpy as Python's; anything else JSON does not know (a date) as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
