"""The conformance kit: what every content type must hold to. The built-in four run it, and so should yours."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fingerprint_dagster import codec
from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.plugin import ContentTypePlugin

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

_HEAD_BYTES = 4096
_DTYPES = {"hamming": np.uint8, "signs": np.uint8, "cosine": np.float32, "tokens": np.uint64}


def check_plugin(plugin: ContentTypePlugin, examples: Sequence[Path], models: ModelRuntime) -> None:
    """Check `plugin` with two or more example files that are no copies of each other.

    Raises `AssertionError` that says which rule is broken.
    """
    assert len({path.read_bytes() for path in examples}) > 1, "give at least two different examples"
    check_declaration(plugin, examples)
    check_damaged_input(plugin, examples)
    fingerprints = [fingerprint_of(plugin, path, models) for path in examples]
    for path, fingerprint in zip(examples, fingerprints, strict=True):
        check_sketch(fingerprint.sketch)
        again = fingerprint_of(plugin, path, models)
        assert _encoded(again.sketch) == _encoded(fingerprint.sketch), f"{path.name}: two runs give different results"
        matches = plugin.match(fingerprint, again)
        if not fingerprint.sketch.info.get("low_information"):
            assert matches, f"{path.name} does not match itself"
            assert matches[0].score > 0.99, f"{path.name} matches itself with a score of only {matches[0].score}"
        for match in matches:
            assert 0.0 <= match.score <= 1.0, f"a score of {match.score} lies outside 0..1"
            assert match.confidence is None or 0.0 <= match.confidence <= 1.0, "a confidence lies within 0..1"
            for box in (match.query_box, match.reference_box):
                assert box is None or (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1), f"{box} is no box"
            assert match.reference == again.content, "a match must name the reference's content"
    for number, one in enumerate(fingerprints):
        for other in fingerprints[number + 1 :]:
            names = (one.content.content_id, other.content.content_id)
            assert not plugin.match(one, other), f"{names[0]} and {names[1]} are no copies, but match"
    assert plugin.embed([], models) == [], "embed of no contents must give no values"


def check_declaration(plugin: ContentTypePlugin, examples: Sequence[Path]) -> None:
    """Name, endings, versions, and that the examples are recognised and random bytes are not."""
    assert plugin.name.isidentifier(), "the name must be an identifier"
    assert plugin.batch_size > 0, "batch_size must be positive"
    assert {"decode", "embed", "hash"} <= set(plugin.versions), "versions must name decode, embed and hash"
    for extension in plugin.extensions:
        assert extension.startswith("."), f"the extension {extension!r} needs its dot"
        assert extension == extension.lower(), f"the extension {extension!r} must be lower case"
    for path in examples:
        media_type = plugin.sniff(path.read_bytes()[:_HEAD_BYTES])
        assert media_type, f"{path.name} is not recognised"
        assert "/" in media_type, f"{media_type!r} is no media type"
    assert plugin.sniff(b"") is None, "no bytes are no content"
    assert plugin.sniff(random.Random(1).randbytes(_HEAD_BYTES)) is None, "random bytes are recognised as content"


def check_damaged_input(plugin: ContentTypePlugin, examples: Sequence[Path]) -> None:
    """Whatever the bytes, decode gives a value or raises `ContentError`, and sniff gives an answer."""
    chance = random.Random(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged"
        for example in examples:
            whole = example.read_bytes()
            flipped = bytearray(whole)
            for _ in range(20):
                flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
            for data in (b"", whole[:10], whole[: len(whole) // 2], bytes(flipped), chance.randbytes(5000)):
                path.write_bytes(data)
                plugin.sniff(data[:_HEAD_BYTES])
                try:
                    plugin.decode(path)
                except ContentError:
                    continue
                except Exception as error:
                    raise AssertionError(
                        f"decode must refuse damaged bytes with ContentError, not {error!r}"
                    ) from error


def fingerprint_of(plugin: ContentTypePlugin, path: Path, models: ModelRuntime) -> Fingerprint:
    """The fingerprint of a file, each value having gone through the bytes that the memo keeps."""
    decoded = codec.decode(codec.encode(plugin.decode(path)))
    (embedded,) = plugin.embed([decoded], models)
    sketch = codec.sketch_to_value(plugin.hash(decoded, codec.decode(codec.encode(embedded))))
    content = Content(path.name, path.absolute().as_uri(), plugin.name)
    media_type = plugin.sniff(path.read_bytes()[:_HEAD_BYTES]) or ""
    sketch = codec.decode(codec.encode(sketch))
    return Fingerprint(content, path.name, path.stat().st_size, media_type, path.name, codec.value_to_sketch(sketch))


def check_sketch(sketch: Sketch) -> None:
    """Every component has the shape and the dtype of its kind, and positions that fit its rows."""
    assert sketch.components, "a fingerprint needs a component"
    names = [component.algorithm for component in sketch.components]
    assert len(set(names)) == len(names), "two components have the same name"
    for component in sketch.components:
        _check_component(component)


def _check_component(component: Component) -> None:
    name, values = component.algorithm, component.values
    if component.kind != "data":
        assert values.dtype == _DTYPES[component.kind], f"{name}: {component.kind} rows cannot be {values.dtype}"
        assert values.ndim == (1 if component.kind == "tokens" else 2), f"{name}: wrong number of dimensions"
    if component.kind == "cosine":
        assert np.allclose(np.linalg.norm(values, axis=1), 1.0, atol=1e-3), f"{name}: rows must have length 1"
    if component.positions is not None:
        rows, ends = component.positions.shape
        assert rows == len(values), f"{name}: positions must be one a row"
        assert ends in (2, 4), f"{name}: positions must be [rows, 2] or, for boxes, [rows, 4]"
        starts, stops = component.positions[:, : ends // 2], component.positions[:, ends // 2 :]
        assert (starts <= stops).all(), f"{name}: a part ends before it starts"
    for part in ("searchable", "asked"):
        chosen = getattr(component, part)
        if chosen is not None:
            assert chosen.shape == (len(values),), f"{name}: {part} must be [rows]"
            assert chosen.dtype == bool, f"{name}: {part} must be bool"


def _encoded(sketch: Sketch) -> bytes:
    return codec.encode(codec.sketch_to_value(sketch))
