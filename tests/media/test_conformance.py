"""Every content type, the built-in four and one of another package, passes the conformance kit."""

from pathlib import Path

import numpy as np
import pytest
from media_files import picture, sample

from fingerprint_dagster.content import Component, Sketch
from fingerprint_dagster.media.conformance import check_plugin, check_sketch
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.models import ModelRuntime

EXAMPLES = {
    "image": [picture("coffee.png"), picture("rocket.jpg"), sample("image/demo.gif")],
    "audio": [sample("audio/demo.mp3"), sample("audio/short.wav")],
    "video": [sample("video/demo.3gp"), None],
    "text": [sample("text/demo.txt"), sample("text/demo.md")],
}


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime("cpu")


@pytest.fixture(scope="module")
def other_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short film of moving stripes, nothing like the sample."""
    import av

    path = tmp_path_factory.mktemp("video") / "stripes.mp4"
    pattern = np.random.default_rng(5).integers(0, 255, (12, 9, 16, 3), dtype=np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for blocks in pattern:
            frame = av.VideoFrame.from_ndarray(np.kron(blocks, np.ones((20, 20, 1), np.uint8)), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_built_in_content_type_conforms(name, models, other_video):
    check_plugin(content_type(name), [path or other_video for path in EXAMPLES[name]], models)


def test_a_content_type_of_another_package_conforms(waveform, models, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.wfm").write_text(f"WAVEFORM\n{number} {number + 10} {number + 20}")
    check_plugin(content_type("waveform"), sorted(tmp_path.glob("*.wfm")), models)


@pytest.mark.parametrize(
    ("component", "rule"),
    [
        (Component("x_v1", "hamming", np.zeros((1, 32), np.int64)), "cannot be int64"),
        (Component("x_v1", "cosine", np.ones((1, 4), np.float32)), "length 1"),
        (Component("x_v1", "tokens", np.zeros((2, 2), np.uint64)), "dimensions"),
        (Component("x_v1", "data", np.zeros(2), np.zeros((1, 2))), "positions must be"),
        (Component("x_v1", "data", np.zeros(1), np.zeros((1, 3))), "positions must be"),
        (Component("x_v1", "data", np.zeros(1), np.array([[2.0, 1.0]])), "ends before"),
        (Component("x_v1", "data", np.zeros(1), np.array([[0.0, 0.5, 1.0, 0.4]])), "ends before"),
        (Component("x_v1", "data", np.zeros(1), asked=np.ones(2, bool)), r"asked must be \[rows\]"),
        (Component("x_v1", "data", np.zeros(1), None, np.zeros(1)), "searchable must be bool"),
    ],
)
def test_the_kit_names_the_rule_that_is_broken(component, rule):
    with pytest.raises(AssertionError, match=rule):
        check_sketch(Sketch((component,)))
