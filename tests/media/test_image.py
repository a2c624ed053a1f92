"""Pictures: what their fingerprint holds, how it is stored, and what is never looked up. Matching: test_image_match."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fingerprint_dagster.codec import sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Sketch
from fingerprint_dagster.media.image import ImagePlugin
from fingerprint_dagster.media.image import decode as decoder
from fingerprint_dagster.models import ModelRuntime

PLUGIN = ImagePlugin()
DESCRIPTOR = "efficientnet_lite0_gem_w512_v1"


@pytest.fixture(scope="module")
def models() -> ModelRuntime:
    return ModelRuntime("cpu")


def sketch_of(image: Image.Image, models: ModelRuntime, folder: Path) -> Sketch:
    path = folder / "picture.png"
    image.save(path)
    decoded = PLUGIN.decode(path)
    (embedded,) = PLUGIN.embed([decoded], models)
    return PLUGIN.hash(decoded, embedded)


def picture(name: str) -> Image.Image:
    return Image.fromarray(getattr(data, name)())


def test_components_of_a_photograph(models: ModelRuntime, tmp_path: Path) -> None:
    sketch = sketch_of(picture("chelsea"), models, tmp_path)
    described = {c.algorithm: (c.kind, c.values.dtype.name, c.values.shape) for c in sketch.components}
    features = sketch.info["features"]
    assert features > 100
    assert described["pdq_v1"] == ("hamming", "uint8", (8, 32))
    assert described[DESCRIPTOR] == ("signs", "uint8", (1, 64))
    assert described["efficientnet_lite0_gem_w512_v1_int8"] == ("data", "int8", (1, 512))
    assert described["local_words_v1"] == ("tokens", "uint64", (features,))
    assert described["local_features_v1"] == ("data", "uint8", (features, 38))
    assert described["phash64_v1"] == described["iscc_image_v0"] == ("data", "uint8", (1, 8))
    assert str(sketch.info["iscc"]).startswith("ISCC:EEA")
    info = {key: sketch.info[key] for key in ("width", "height", "quality", "low_information")}
    assert info == {"width": 451, "height": 300, "quality": 100, "low_information": False}


def test_a_picture_is_found_upright_and_asks_in_eight_orientations(models: ModelRuntime, tmp_path: Path) -> None:
    pdq = sketch_of(picture("chelsea"), models, tmp_path).component("pdq_v1")
    assert pdq is not None
    assert pdq.searchable is not None
    assert pdq.asked is not None
    assert pdq.searchable.tolist() == [True] + [False] * 7
    assert pdq.asked.tolist() == [True] * 8


def test_the_stored_vector_is_the_descriptor_to_a_hundredth(models: ModelRuntime, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    picture("coffee").save(path)
    decoded = PLUGIN.decode(path)
    (embedded,) = PLUGIN.embed([decoded], models)
    exact = embedded.arrays[DESCRIPTOR][0]
    stored = PLUGIN.hash(decoded, embedded).component("efficientnet_lite0_gem_w512_v1_int8")
    assert stored is not None
    vector = stored.values[0].astype(np.float64)
    assert float(vector @ exact / np.linalg.norm(vector)) > 0.999


def test_a_fingerprint_is_small(models: ModelRuntime, tmp_path: Path) -> None:
    sketch = sketch_of(picture("astronaut"), models, tmp_path)
    assert sum(component.values.nbytes for component in sketch.components) < 13_000


def test_sketch_survives_storage(models: ModelRuntime, tmp_path: Path) -> None:
    sketch = sketch_of(picture("chelsea"), models, tmp_path)
    stored = value_to_sketch(sketch_to_value(sketch))
    assert stored.info == sketch.info
    assert [c.algorithm for c in stored.components] == [c.algorithm for c in sketch.components]


def test_the_same_picture_has_the_same_fingerprint(models: ModelRuntime, tmp_path: Path) -> None:
    once, again = (sketch_of(picture("rocket"), models, tmp_path) for _ in range(2))
    for one, other in zip(once.components, again.components, strict=True):
        assert np.array_equal(one.values, other.values), one.algorithm


def test_embedding_a_batch_keeps_the_order(models: ModelRuntime, tmp_path: Path) -> None:
    values = []
    for name in ("chelsea", "coffee", "rocket"):
        picture(name).save(tmp_path / f"{name}.png")
        values.append(PLUGIN.decode(tmp_path / f"{name}.png"))
    together = PLUGIN.embed(values, models)
    for value, vector in zip(values, together, strict=True):
        alone = PLUGIN.embed([value], models)[0].arrays[DESCRIPTOR]
        assert float(alone[0] @ vector.arrays[DESCRIPTOR][0]) > 0.99
    assert PLUGIN.embed([], models) == []


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGB", (300, 200), "white"),
        Image.new("RGB", (300, 200), "black"),
        Image.new("RGB", (1, 1), "red"),
        Image.new("RGB", (20_000, 1), "red"),
        Image.new("RGB", (3, 2000), "green"),
        Image.linear_gradient("L").resize((256, 256)),
    ],
    ids=["white", "black", "one pixel", "one line", "three columns", "gradient"],
)
def test_what_shows_nothing_is_not_looked_up(image: Image.Image, models: ModelRuntime, tmp_path: Path) -> None:
    sketch = sketch_of(image, models, tmp_path)
    assert sketch.info["low_information"]
    for component in sketch.components:
        for rows in (component.searchable, component.asked):
            assert component.kind == "data" or rows is None or not rows.any()
        assert component.kind == "data" or component.searchable is not None


# ---- the plugin


def test_importing_the_plugin_is_cheap() -> None:
    code = (
        "import sys; from fingerprint_dagster.media.image import ImagePlugin; ImagePlugin(); "
        "sys.exit(bool({'torch', 'torchvision', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_versions_name_what_makes_the_output() -> None:
    assert PLUGIN.versions["decode"] == decoder.VERSION
    assert PLUGIN.versions["embed"] == "image_descriptor_v1"
    assert PLUGIN.parameters["embed"]["model"] == DESCRIPTOR
    assert len(PLUGIN.parameters["embed"]["weights"]) == 64
    assert PLUGIN.versions["hash"] == "pdq_v1+local_features_v1+phash64_v1+iscc_image_v0"
    assert PLUGIN.name == "image"
    assert PLUGIN.batch_size == 1000
