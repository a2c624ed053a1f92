"""Stage values and sketches as bytes: the safetensors format, so that any machine and any language can read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fingerprint_dagster.content import Component, Sketch, Value

# The names that safetensors has for numpy's types, in the order in which it writes tensors: none is misaligned.
_TENSOR_TYPES = {
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "float32": "F32",
    "uint32": "U32",
    "int32": "I32",
    "float16": "F16",
    "uint16": "U16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_TYPES = {tensor: np.dtype(name).newbyteorder("<") for name, tensor in _TENSOR_TYPES.items()}
# numpy takes as long to name a type as to copy a small array.
_TENSORS = {dtype.str: (number, tensor) for number, (tensor, dtype) in enumerate(_TYPES.items())}
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: Value) -> bytes:
    """`value` as one safetensors file: its arrays as tensors, its info as JSON in the header's metadata.

    The bytes are those of `safetensors.numpy.save`, which copies every array twice: hours of sound feel that.
    Raises ValueError for an array of another type than safetensors has (text, dates, complex numbers).
    """
    arrays: list[tuple[int, str, str, np.ndarray]] = []
    for name, each in value.arrays.items():
        array = np.asarray(each)
        number, tensor = _TENSORS.get(array.dtype.newbyteorder("<").str, (0, ""))
        if not tensor:
            raise ValueError(f"the array {name!r} is of type {array.dtype}, which safetensors does not have")
        arrays.append((number, name, tensor, array))
    header: dict[str, Any] = {"__metadata__": {"info": _json(value.info)}}
    parts: list[bytes | memoryview] = []
    size = 0
    for _, name, tensor, array in sorted(arrays, key=lambda each: each[:2]):
        little = np.asarray(array, _TYPES[tensor], order="C")
        end = size + little.nbytes
        header[name] = {"dtype": tensor, "shape": array.shape, "data_offsets": (size, end)}
        parts.append(little.reshape(-1).view(np.uint8).data)
        size = end
    text = _json(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def decode(data: bytes) -> Value:
    """The value that `encode` wrote. Raises ValueError for bytes it did not write.

    Copies the arrays once, all together; `safetensors.numpy.load` does it twice.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        info = json.loads(header.pop("__metadata__")["info"])
        body = bytearray(memoryview(data)[8 + size :])  # Arrays that may be written to, as any other.
        arrays = {name: _array(body, each) for name, each in header.items()}
        written = max((each["data_offsets"][1] for each in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an encoded value: {error}") from error
    if written != len(body):
        raise ValueError("not an encoded value: it is longer or shorter than its arrays")
    if not isinstance(info, dict):
        raise ValueError("not an encoded value: its info is no object")
    return Value(arrays, info)


def _array(body: bytearray, told: Mapping[str, Any]) -> np.ndarray:
    """The array that the header tells of. Raises ValueError where its bytes are not all there."""
    start, end = told["data_offsets"]
    shape, dtype = told["shape"], _TYPES[told["dtype"]]
    count, rest = divmod(end - start, dtype.itemsize)
    if not 0 <= start <= end <= len(body) or rest or min(shape, default=0) < 0:
        raise ValueError("an array lies outside of the bytes")
    return np.frombuffer(body, dtype, count, start).reshape(shape)


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
