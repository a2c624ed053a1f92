"""Stage values and sketches as bytes: the safetensors format, so that any machine and any language can read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fingerprint_dagster.content import Component, Sketch, Value


def encode(value: Value) -> bytes:
    """`value` as one safetensors file: its arrays as tensors, its info as JSON in the header's metadata."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in value.arrays.items()}
    return save(arrays, {"info": json.dumps(value.info, ensure_ascii=False, separators=(",", ":"))})


def decode(data: bytes) -> Value:
    """The value that `encode` wrote. Raises ValueError for bytes it did not write."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        info = json.loads(header["__metadata__"]["info"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an encoded value: {error}") from error
    if not isinstance(info, dict):
        raise ValueError("not an encoded value: its info is no object")
    return Value(arrays, info)


def sketch_to_value(sketch: Sketch) -> Value:
    """The sketch as a stage value: arrays `algorithm/values`, and `/positions`, `/searchable`, `/asked` where given."""
    arrays: dict[str, np.ndarray] = {}
    for component in sketch.components:
        for part in ("values", "positions", "searchable", "asked"):
            array = getattr(component, part)
            if array is not None:
                arrays[f"{component.algorithm}/{part}"] = array
    kinds = {component.algorithm: component.kind for component in sketch.components}
    return Value(arrays, {"kinds": kinds, "info": dict(sketch.info)})


def value_to_sketch(value: Value) -> Sketch:
    """The sketch that `sketch_to_value` was given."""
    kinds: Mapping[str, Any] = value.info["kinds"]
    components = tuple(
        Component(
            algorithm,
            kind,
            value.arrays[f"{algorithm}/values"],
            value.arrays.get(f"{algorithm}/positions"),
            value.arrays.get(f"{algorithm}/searchable"),
            value.arrays.get(f"{algorithm}/asked"),
        )
        for algorithm, kind in kinds.items()
    )
    return Sketch(components, value.info["info"])
