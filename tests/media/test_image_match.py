"""Which pictures are copies of each other, and where: edits of real pictures, whose geometry is known."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from skimage import data

from fingerprint_dagster.content import Box, Content, Fingerprint, Match, Sketch
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.image import ImagePlugin, local_features
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import UNSURE, find_copies, verify

PLUGIN = ImagePlugin()
# Everyday pictures in scikit-image, of people, animals, things, textures, documents and the sky.
NAMES = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon", "page", "rocket")
FEATURES, PDQ = "local_features_v1", "pdq_v1"


def picture(name: str = "astronaut") -> Image.Image:
    return Image.fromarray(getattr(data, name)()).convert("RGB")


class Fingerprints:
    """Makes fingerprints of pictures, and keeps those of the originals."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "picture.png"
        self._models = ModelRuntime("cpu")
        self._originals: dict[str, Fingerprint] = {}

    def of(self, image: Image.Image, name: str = "query") -> Fingerprint:
        image.save(self._path)
        decoded = PLUGIN.decode(self._path)
        (embedded,) = PLUGIN.embed([decoded], self._models)
        sketch = PLUGIN.hash(decoded, embedded)
        return Fingerprint(Content(name, f"file:///{name}", "image"), name, 0, "image/png", name, sketch)

    def original(self, name: str) -> Fingerprint:
        if name not in self._originals:
            self._originals[name] = self.of(picture(name), name)
        return self._originals[name]

    def match(self, edited: Image.Image, name: str) -> list[Match]:
        return PLUGIN.match(self.of(edited), self.original(name))


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory: pytest.TempPathFactory) -> Fingerprints:
    return Fingerprints(tmp_path_factory.mktemp("pictures"))


def iou(one: Box | None, other: Box) -> float:
    left, top, right, bottom = one or (0, 0, 1, 1)
    width, height = min(right, other[2]) - max(left, other[0]), min(bottom, other[3]) - max(top, other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((right - left) * (bottom - top) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


WHOLE = (0.0, 0.0, 1.0, 1.0)


# ---- copies of the whole picture


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=20)
    return Image.open(buffer)


@pytest.mark.parametrize(
    "edit",
    [
        recompressed,
        lambda i: i.resize((i.width // 3, i.height // 3)),
        lambda i: i.convert("L"),
        lambda i: i.filter(ImageFilter.GaussianBlur(1.5)),
        lambda i: ImageEnhance.Contrast(i).enhance(0.6),
        ImageOps.mirror,
        ImageOps.flip,
        lambda i: i.transpose(Image.Transpose.ROTATE_90),
        lambda i: i.transpose(Image.Transpose.TRANSVERSE),
    ],
    ids=["jpeg", "small", "grey", "blurred", "faded", "mirrored", "upside down", "turned", "turned and mirrored"],
)
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_whole_copy_is_known_by_its_hash(
    name: str, edit: Callable[[Image.Image], Image.Image], fingerprints: Fingerprints
) -> None:
    copy, original = fingerprints.of(edit(picture(name))), fingerprints.original(name)
    for query, reference in ((copy, original), (original, copy)):
        (found,) = PLUGIN.match(query, reference)
        assert found.reference == reference.content
        assert found.evidence == PDQ
        assert 1 - 31 / 256 <= found.score <= 1
        assert found.query_box is None
        assert found.reference_box is None
        assert found.query_range is None


def test_the_same_picture_scores_one(fingerprints: Fingerprints) -> None:
    assert [match.score for match in fingerprints.match(picture("coffee"), "coffee")] == [1.0]


# ---- copies of a part, on a part


def check(found: list[Match], query_box: Box, reference_box: Box, least: float = 0.9) -> Match:
    """The one match, by features, with these boxes."""
    (match,) = found
    assert match.evidence == FEATURES
    assert 0 < match.score < 1
    assert match.strength is not None
    assert match.strength >= PLUGIN.thresholds[FEATURES]
    assert iou(match.query_box, query_box) > least, match.query_box
    assert iou(match.reference_box, reference_box) > least, match.reference_box
    return match


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["astronaut", "coffee", "chelsea"]),
    share=st.floats(0.55, 0.8),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    mirrored=st.booleans(),
)
def test_a_crop_is_found_with_its_place(
    name: str, share: float, x: float, y: float, mirrored: bool, fingerprints: Fingerprints
) -> None:
    image = picture(name)
    width, height = round(image.width * share), round(image.height * share)
    left, top = round((image.width - width) * x), round((image.height - height) * y)
    crop = image.crop((left, top, left + width, top + height))
    place = (left / image.width, top / image.height, (left + width) / image.width, (top + height) / image.height)
    found = fingerprints.match(ImageOps.mirror(crop) if mirrored else crop, name)
    match = check(found, WHOLE, place, 0.85)
    assert match.details["mirrored"] is mirrored
    assert match.details["inliers"] >= 4


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    share=st.floats(0.45, 0.8),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    ground=st.sampled_from(["grass", "brick", "page", "white"]),
)
def test_a_picture_on_another_is_found_with_its_place(
    share: float, x: float, y: float, ground: str, fingerprints: Fingerprints
) -> None:
    size = (800, 600)
    canvas = Image.new("RGB", size, "white") if ground == "white" else picture(ground).resize(size)
    image = picture("chelsea")
    scale = min(size[0] / image.width, size[1] / image.height) * share
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = round((size[0] - small.width) * x), round((size[1] - small.height) * y)
    canvas.paste(small, (left, top))
    place = (left / size[0], top / size[1], (left + small.width) / size[0], (top + small.height) / size[1])
    check(fingerprints.match(canvas, "chelsea"), place, WHOLE)


@pytest.mark.parametrize("degrees", [5, 15, 25, -40, 70, 135])
def test_any_rotation_is_found(degrees: int, fingerprints: Fingerprints) -> None:
    turned = picture("coffee").rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    check(fingerprints.match(turned, "coffee"), WHOLE, WHOLE)


def test_each_picture_of_a_collage_is_found_in_its_quarter(fingerprints: Fingerprints) -> None:
    names = ("astronaut", "chelsea", "coffee", "rocket")
    canvas = Image.new("RGB", (1000, 800))
    for index, name in enumerate(names):
        canvas.paste(ImageOps.fit(picture(name), (500, 400)), (index % 2 * 500, index // 2 * 400))
    collage = fingerprints.of(canvas)
    for index, name in enumerate(names):
        left, top = index % 2 / 2, index // 2 / 2
        width, height = picture(name).size
        across, down = min(1, 1.25 * height / width) / 2, min(1, 0.8 * width / height) / 2  # what `fit` keeps
        found = PLUGIN.match(collage, fingerprints.original(name))
        shown = (0.5 - across, 0.5 - down, 0.5 + across, 0.5 + down)
        check(found, (left, top, left + 0.5, top + 0.5), shown, 0.8)


def test_a_picture_found_in_a_collage_is_part_of_it_the_other_way_round(fingerprints: Fingerprints) -> None:
    canvas = Image.new("RGB", (1200, 300), "white")
    for index, name in enumerate(("coffee", "chelsea", "rocket")):
        canvas.paste(picture(name).resize((400, 300)), (index * 400, 0))
    found = PLUGIN.match(fingerprints.original("chelsea"), fingerprints.of(canvas))
    check(found, WHOLE, (1 / 3, 0, 2 / 3, 1), 0.85)


def test_a_photographed_screen_is_found_in_perspective(fingerprints: Fingerprints) -> None:
    image = picture("coffee")
    corners = ((60, 30), (500, 70), (540, 380), (20, 350))
    width, height = image.size
    rows = [
        row
        for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y, u], [0, 0, 0, x, y, 1, -v * x, -v * y, v])
    ]
    system = np.array(rows, np.float64)
    coefficients = np.linalg.solve(system[:, :8], system[:, 8])
    photo = image.transform((560, 420), Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BICUBIC)
    check(fingerprints.match(photo, "coffee"), (20 / 560, 30 / 420, 540 / 560, 380 / 420), WHOLE)


def test_overlays_do_not_hide_a_copy(fingerprints: Fingerprints) -> None:
    image = picture("astronaut")
    draw = ImageDraw.Draw(image)
    for x, y in ((60, 60), (260, 140), (150, 300)):
        draw.ellipse((x, y, x + 150, y + 150), fill="gold", outline="black")
    draw.text((20, 20), "WHEN YOU SEE IT", fill="white", font_size=48, stroke_width=4, stroke_fill="black")
    (found,) = fingerprints.match(image, "astronaut")
    assert iou(found.query_box, WHOLE) > 0.9


# ---- no copies


def test_different_pictures_do_not_match(fingerprints: Fingerprints) -> None:
    everything = [fingerprints.original(name) for name in (*NAMES, "retina", "text", "cell")]
    matching = {
        (query.content.content_id, reference.content.content_id)
        for query in everything
        for reference in everything
        if PLUGIN.match(query, reference)
    }
    assert {pair for pair in matching if pair[0] != pair[1]} == set()
    assert {pair[0] for pair in matching} == {
        f.content.content_id for f in everything if not f.sketch.info["low_information"]
    }


def framed(image: Image.Image, width: float) -> Image.Image:
    """The picture in a frame of many coloured spots, always the same; its width in shares of the side."""
    random, side = np.random.default_rng(0), 512
    canvas = Image.new("RGB", (side, side), (120, 80, 40))
    draw = ImageDraw.Draw(canvas)
    for _ in range(900):
        x, y, across, down = (int(number) for number in random.integers((0, 0, 4, 4), (side, side, 18, 36)))
        draw.ellipse((x, y, x + across, y + down), fill=tuple(random.integers(0, 256, 3).tolist()))
    inner = round(side * (1 - 2 * width))
    canvas.paste(ImageOps.fit(image, (inner, inner)), (round(side * width),) * 2)
    return canvas


@pytest.mark.parametrize("width", [0.06, 0.1, 0.15])
def test_different_pictures_in_one_frame_are_only_suggested(width: float, fingerprints: Fingerprints) -> None:
    one, other = (fingerprints.of(framed(picture(name), width)) for name in ("coffee", "camera"))
    (found,) = verify(PLUGIN, one, other)
    assert found.details["suggestion"]
    assert found.details["frame"]
    assert found.confidence is not None
    assert found.confidence <= UNSURE


@pytest.mark.parametrize("name", ["coffee", "camera"])
def test_a_picture_in_a_frame_is_no_suggestion(name: str, fingerprints: Fingerprints) -> None:
    bare, one = fingerprints.original(name), fingerprints.of(framed(picture(name), 0.1))
    darker = fingerprints.of(ImageEnhance.Brightness(framed(picture(name), 0.1).crop((20, 20, 512, 512))).enhance(0.7))
    for query, reference in ((one, bare), (bare, one), (one, darker)):
        (found,) = verify(PLUGIN, query, reference)
        assert found.evidence == FEATURES
        assert "suggestion" not in found.details


def striped(step: int) -> Image.Image:
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    for x in range(0, 400, step):
        draw.rectangle((x, 0, x + step // 2, 400), fill="black")
    return image


def squares(step: int, turned: int = 0) -> Image.Image:
    image = Image.new("RGB", (400, 400), "white")
    draw = ImageDraw.Draw(image)
    for x in range(0, 400, step):
        for y in range(x // step % 2 * step, 400, 2 * step):
            draw.rectangle((x, y, x + step - 1, y + step - 1), fill="black")
    return image.rotate(turned)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (300, 400, 3), np.uint8))


def test_noise_does_not_match_other_noise(fingerprints: Fingerprints) -> None:
    pictures = [fingerprints.of(noise(seed)) for seed in range(4)]
    assert all(not PLUGIN.match(one, other) for one in pictures for other in pictures if one is not other)


def test_flat_pictures_never_match(fingerprints: Fingerprints) -> None:
    gradient = Image.linear_gradient("L").resize((256, 256))
    flat = [*(Image.new("RGB", (300, 200), colour) for colour in ("white", "snow", "black")), gradient]
    queries = [fingerprints.of(image) for image in flat]
    for query in queries:
        assert query.sketch.info["low_information"]
        for reference in (*queries, fingerprints.original("astronaut")):
            assert PLUGIN.match(query, reference) == []
            assert PLUGIN.match(reference, query) == []


@pytest.mark.parametrize("image", [striped(20), striped(32)], ids=["narrow", "wide"])
def test_stripes_do_not_match_photographs(image: Image.Image, fingerprints: Fingerprints) -> None:
    query = fingerprints.of(image)
    assert all(not PLUGIN.match(query, fingerprints.original(name)) for name in NAMES)


def test_fingerprints_of_other_algorithms_are_not_compared(fingerprints: Fingerprints) -> None:
    ours = fingerprints.original("astronaut")
    other = replace(ours, sketch=Sketch((), dict(ours.sketch.info)))
    assert PLUGIN.match(ours, other) == []
    assert PLUGIN.match(other, ours) == []


# ---- through an index


def test_crops_turns_and_collages_are_found_in_an_index(fingerprints: Fingerprints) -> None:
    store = ExactStore()
    store.put([fingerprints.original(name) for name in NAMES])
    image = picture("coffee")
    canvas = Image.new("RGB", (1000, 800))
    for index, name in enumerate(("coffee", "chelsea", "rocket", "camera")):
        canvas.paste(picture(name).resize((500, 400)), (index % 2 * 500, index // 2 * 400))
    queries = {
        "crop": (image.crop((150, 100, 450, 300)), {"coffee"}),
        "mirrored": (ImageOps.mirror(image), {"coffee"}),
        "turned": (image.rotate(-33, expand=True), {"coffee"}),
        "collage": (canvas, {"coffee", "chelsea", "rocket", "camera"}),
        "nothing": (noise(1), set()),
    }
    for edit, (edited, expected) in queries.items():
        found = find_copies(store, PLUGIN, fingerprints.of(edited), 10)
        assert {match.reference.content_id for match in found} == expected, edit


# ---- the features


def test_packed_features_come_back(fingerprints: Fingerprints) -> None:
    features, words = local_features.local_features_v1(np.asarray(picture("rocket")))
    packed = local_features.pack(features)
    again = local_features.unpack(packed)
    assert packed.shape == (len(features), 38)
    assert len(words) == len(features)
    assert int(words.max()) < 2**20
    assert np.array_equal(again.bits, features.bits)
    assert np.array_equal(again.reversed, features.reversed)
    assert np.abs(again.points - features.points).max() < 1e-4
    assert np.abs(again.sizes / features.sizes - 1).max() < 0.03
    turned = np.abs(np.angle(np.exp(1j * (again.angles - features.angles).astype(np.float64))))
    assert turned.max() < np.radians(1.5)


def test_features_of_a_mirrored_picture_are_the_same_ones(fingerprints: Fingerprints) -> None:
    rgb = np.asarray(picture("astronaut"))
    (ours, words), (theirs, other_words) = (local_features.local_features_v1(image) for image in (rgb, rgb[:, ::-1]))
    assert np.isin(words, other_words).mean() > 0.3
    distances = np.bitwise_count(ours.bits[:, None] ^ theirs.bits).sum(axis=2, dtype=np.int64)
    nearest = distances.argmin(axis=1)
    same = distances.min(axis=1) < 40
    assert same.mean() > 0.6
    assert (ours.reversed[same] != theirs.reversed[nearest[same]]).mean() > 0.95
    assert np.median(np.abs(1 - ours.points[same, 0] - theirs.points[nearest[same], 0])) < 0.01


def test_a_picture_without_texture_has_no_features() -> None:
    features, words = local_features.local_features_v1(np.full((200, 300, 3), 90, np.uint8))
    assert len(features) == len(words) == 0
    assert local_features.pack(features).shape == (0, 38)
    assert len(local_features.unpack(local_features.pack(features))) == 0
