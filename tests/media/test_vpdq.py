"""vPDQ: the published sample hashes, and the text form that its tools read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import pictures

from fingerprint_dagster.content import Component, Content, Fingerprint, Sketch
from fingerprint_dagster.media.image.pdq import pdq_frames_v1
from fingerprint_dagster.media.video import VideoPlugin, vpdq

STEP = 10  # every tenth frame


@pytest.mark.parametrize(
    ("name", "floor", "limit"),
    [
        ("test-padded-dimensions", 50, 6),
        ("pattern-sd-grey-bar", 50, 6),
        ("pattern-sd-with-large-logo-bar", 50, 6),
        ("chair-19-sd-bar", 50, 6),
        ("chair-22-sd-grey-bar", 50, 6),
        ("doorknob-hd-no-bar", 80, 4),  # it fades to a blur, whose hashes no two decoders agree on
    ],
)
def test_frames_hash_as_published(vectors: Path, name: str, floor: int, limit: int) -> None:
    """At their native size; the limits are the spread between decoders."""
    text = (vectors / "vpdq" / f"{name}.txt").read_text()
    published, qualities, seconds = vpdq.parse(text)
    kept = [
        (time, picture) for n, (time, picture) in enumerate(pictures(vectors / "vpdq" / f"{name}.mp4")) if n % STEP == 0
    ]
    hashes, ours = pdq_frames_v1(np.stack([picture for _, picture in kept]))
    assert len(hashes) == len(published[::STEP])
    good = qualities[::STEP] >= floor
    assert good.sum() >= 3
    distance = np.bitwise_count(hashes ^ published[::STEP]).sum(axis=1)
    assert distance[good].max() <= limit
    assert np.abs(ours.astype(int) - qualities[::STEP]).max() <= 2
    assert seconds[::STEP] == pytest.approx([time for time, _ in kept], abs=0.05)


def test_the_published_text_is_written_as_it_was_read(vectors: Path) -> None:
    for path in sorted((vectors / "vpdq").glob("chair-*.txt")):
        text = path.read_text()
        assert vpdq.text(*vpdq.parse(text)).split() == text.split()


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 100), st.floats(0, 40_000)), max_size=20))
def test_what_is_written_can_be_read(rows: list[tuple[bytes, int, float]]) -> None:
    hashes = np.array([list(row[0]) for row in rows], np.uint8).reshape(-1, 32)
    qualities = np.array([row[1] for row in rows], np.uint8)
    seconds = np.array([row[2] for row in rows], np.float64)
    back = vpdq.parse(vpdq.text(hashes, qualities, seconds))
    np.testing.assert_array_equal(back[0], hashes)
    np.testing.assert_array_equal(back[1], qualities)
    np.testing.assert_allclose(back[2], seconds, atol=5e-4)


def test_a_fingerprint_is_exported_without_the_mirrored_hashes() -> None:
    hashes = np.arange(4 * 32, dtype=np.uint8).reshape(4, 32)
    positions = np.array([[0.0, 1.5], [1.5, 3661.25]])
    sketch = Sketch(
        (
            Component("pdq_v1", "hamming", hashes, np.tile(positions, (2, 1))),
            Component("pdq_quality_v1", "data", np.array([100, 7], np.uint8)),
        )
    )
    fingerprint = Fingerprint(Content("a", "file:///a", "video"), "d", 1, "video/mp4", "k", sketch)
    assert VideoPlugin().interchange(fingerprint) == {
        "vpdq": f"0,100,{hashes[0].tobytes().hex()},0.000\n1,7,{hashes[1].tobytes().hex()},1.500\n"
    }
    assert VideoPlugin().interchange(Fingerprint(fingerprint.content, "d", 1, "", "k", Sketch(()))) == {"vpdq": ""}


@pytest.mark.parametrize("text", ["1,100,zz,0\n", "1,100\n", "hello"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        vpdq.parse(text)
