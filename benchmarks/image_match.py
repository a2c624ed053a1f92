"""How well edited copies of pictures are found, beside PDQ and pHash in the same run.

    python benchmarks/image_match.py FOLDER MANIFEST [--quick]

FOLDER holds real pictures; MANIFEST (tab-separated, with the columns path, sha256, kind, package, size, content,
primary) says what they are. The packages are dealt into three parts: references, distractors, and the rest, which the
fingerprint was fitted on (`--fit-list` prints it for `python -m fingerprint_dagster.media.image.fit`). Every reference
is stored. The queries are edits of some references in every class of `EDITS`, and as many edits of distractors, for
which there is nothing to find. Each query goes the whole way: its bytes through the plugin's decode, embed and hash,
then through the index (`ExactStore`, `find_copies`); each reference found counts by the score of its best match.

Per class: R@1 (the best match is the right one); uAP (the micro average precision of DISC, over all pairs of a query
and a reference; each class is taken with all distractors); recall at a precision of .99 and without a false positive
among all queries of the run; and the median IoU of the matched boxes with the known geometry of the edit, of the worse
of the two sides. PDQ is Meta's in C++ (`pdqhash`, the least of eight orientations), pHash that of `imagehash`. Needs
the `bench` extra.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pdqhash
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from processor_time import added, through_stages

from fingerprint_dagster.content import Content, Fingerprint, Match
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.image import ImagePlugin
from fingerprint_dagster.models import ModelRuntime
from fingerprint_dagster.search import find_copies

F64 = NDArray[np.float64]
Box = tuple[float, float, float, float]

REFERENCES_STORED = 200
PER_PACKAGE = 30
FIT_PER_PACKAGE = 40
# References that show the same, found by eye (a wallpaper in two shapes, say): the beginnings of the file names.
SAME = (
    {"5e13289ae8", "724d51d662"},
    {"220d5fe725", "4dc9d13e89"},
    {"33317a403e", "7341ff2532"},
    {"2b2fcfe33d", "b7b2d58247"},
    {"0e5d97de8a", "9fac215403"},
    {"2f3df24b81", "43176c8709"},
    {"c938edd7e9", "e75adbd953"},
    {"2c37d17f77", "d64060e7b6"},
    {"463ad57048", "c92cf07e80"},
    {"733723b3b6", "ab118352c3"},
    {"a7969c6b25", "e8f6167baf"},
    {"3e25fc3407", "ba1056348c"},
    {"88867ecced", "e33266e76b"},
    {"b7f8945a70", "cab4fe37e7"},
    {"3e25fc3407", "4eb598dacf"},
    {"89c4208477", "9d63043f93"},
    {"16b176bdf8", "d202f85a27"},
    {"0b44fb97ea", "61ac044e4a"},
)
MAX_SIDE = 1280  # originals are edited at this size: large enough for every class, and quick
# Whole packages, so that pictures of one maker are in one part; what is in neither list is for fitting.
REFERENCES = (
    *("@creative-tim-official/argon-dashboard", "@creative-tim-official/argon-dashboard-free", "krank", "lxqt-themes"),
    *("material-dashboard", "material-dashboard-react", "material-kit", "mezzanine", "plasma-workspace-wallpapers"),
    *("soft-ui-dashboard", "soft-ui-design-system", "startbootstrap-creative"),
)
DISTRACTORS = (
    *("ardentryst", "caer", "cimg-examples", "desktop-base", "extremetuxracer-data", "face-recognition", "flare-game"),
    *("foolbox", "fotoxx-common", "golang-github-disintegration-imaging-dev", "golang-github-rwcarlsen-goexif-dev"),
    *("hedgewars-data", "libjs-jquery-backstretch", "marsshooter-data", "pyside6-examples", "python-kivy-examples"),
    *("python3-imgviz", "renpy-demo", "renpy-thequestion", "scratch", "sneat-bootstrap-html-admin-template-free"),
    *("sports2d", "stellarium-data", "thumbor"),
)


# ---- the pictures


@dataclass(frozen=True)
class Picture:
    """One picture of the corpus: where it is, and the package it is from."""

    path: Path
    package: str


def part_of(package: str) -> str:
    """The part a package belongs to: "reference", "distractor" or "fit"."""
    return "reference" if package in REFERENCES else "distractor" if package in DISTRACTORS else "fit"


def pictures(folder: Path, manifest: Path, part: str, most: int = 10**9, per_package: int = 10**9) -> list[Picture]:
    """Photographs and art of one part, one of each group of near-copies, in a fixed shuffled order."""
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == "image"]
    rows.sort(key=lambda row: row["sha256"])
    chosen: list[Picture] = []
    taken: dict[str, int] = {}
    for row in rows:
        if row["content"] not in ("photo", "art") or row["primary"] != "1" or part_of(row["package"]) != part:
            continue
        if min(map(int, row["size"].split("x"))) < 300 or taken.get(row["package"], 0) >= per_package:
            continue
        path = folder / row["path"].removeprefix("image/")
        if not path.exists():
            path = folder / row["path"]
        if path.exists() and len(chosen) < most:
            taken[row["package"]] = taken.get(row["package"], 0) + 1
            chosen.append(Picture(path, row["package"]))
    return chosen


def load(path: Path) -> Image.Image:
    """The picture, upright and in RGB, with no side above `MAX_SIDE`."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("P", "LA", "PA", "RGBA"):
            upright = upright.convert("RGBA")
            white = Image.new("RGB", upright.size, "white")
            white.paste(upright, mask=upright)
            upright = white
        rgb = upright.convert("RGB")
    rgb.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return rgb


# ---- the edits, each with where the original went


@dataclass(frozen=True)
class Edited:
    """An edited picture.

    moved: float64 [3, 3], a point of the original (x, y, 1 in pixels) to its place in the edited picture.
    seen: the part of the edited picture that can show the original, in pixels; None means all of it.
    jpeg: the quality the query is stored with.
    """

    image: Image.Image
    moved: F64
    seen: tuple[float, float, float, float] | None = None
    jpeg: int = 90


def shift(x: float, y: float, sx: float = 1.0, sy: float | None = None) -> F64:
    """Scaled, then moved."""
    return np.array([[sx, 0, x], [0, sx if sy is None else sy, y], [0, 0, 1.0]])


class Editor:
    """The edits, by name. random: of one query; others: makes another picture to paste on or beside."""

    def __init__(self, random: np.random.Generator, others: Callable[[], Image.Image]) -> None:
        self.random = random
        self.others = others

    def jpeg30(self, image: Image.Image) -> Edited:
        """Recompressed at JPEG quality 30."""
        return Edited(image, np.eye(3), jpeg=30)

    def resize25(self, image: Image.Image) -> Edited:
        """A quarter of the width and height."""
        small = image.resize((max(image.width // 4, 8), max(image.height // 4, 8)), Image.Resampling.BICUBIC)
        return Edited(small, shift(0, 0, small.width / image.width, small.height / image.height))

    def _crop(self, image: Image.Image, share: float) -> Edited:
        width, height = round(image.width * share), round(image.height * share)
        x = int(self.random.integers(0, image.width - width + 1))
        y = int(self.random.integers(0, image.height - height + 1))
        return Edited(image.crop((x, y, x + width, y + height)), shift(-x, -y))

    def crop70(self, image: Image.Image) -> Edited:
        """70 % of the width and height, anywhere."""
        return self._crop(image, 0.7)

    def crop50(self, image: Image.Image) -> Edited:
        """Half of the width and height, anywhere."""
        return self._crop(image, 0.5)

    def crop40(self, image: Image.Image) -> Edited:
        """40 % of the width and height, anywhere."""
        return self._crop(image, 0.4)

    def _rotate(self, image: Image.Image, degrees: float) -> Edited:
        """With the corners filled (in half of the pictures), or cut to the largest upright part without them."""
        degrees *= 1 if self.random.random() < 0.5 else -1
        width, height = image.size
        turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1), [0, 0, 1]])
        corners = _project(turn, _corners(width, height))
        low, high = corners.min(axis=0), corners.max(axis=0)
        moved = shift(-low[0], -low[1]) @ turn
        size = tuple(np.ceil(high - low).astype(int))
        fill = (0, 0, 0) if self.random.random() < 0.5 else (255, 255, 255)
        turned = _warp(image, moved, size, fill)
        if self.random.random() < 0.5:
            return Edited(turned, moved)
        sine, cosine = abs(np.sin(np.radians(degrees))), abs(np.cos(np.radians(degrees)))
        short, long = min(width, height), max(width, height)
        if short <= 2 * sine * cosine * long:
            half = short / 2
            inner = (half / sine, half / cosine) if width >= height else (half / cosine, half / sine)
        else:
            double = cosine**2 - sine**2
            inner = ((width * cosine - height * sine) / double, (height * cosine - width * sine) / double)
        x, y = (size[0] - inner[0]) / 2, (size[1] - inner[1]) / 2
        box = (round(x), round(y), round(x + inner[0]), round(y + inner[1]))
        return Edited(turned.crop(box), shift(-box[0], -box[1]) @ moved)

    def rotate5(self, image: Image.Image) -> Edited:
        """Turned by 5 degrees."""
        return self._rotate(image, 5)

    def rotate15(self, image: Image.Image) -> Edited:
        """Turned by 15 degrees."""
        return self._rotate(image, 15)

    def rotate25(self, image: Image.Image) -> Edited:
        """Turned by 25 degrees."""
        return self._rotate(image, 25)

    def rotate90(self, image: Image.Image) -> Edited:
        """Turned by 90 degrees."""
        moved = np.array([[0, 1.0, 0], [-1, 0, image.width], [0, 0, 1]])
        return Edited(image.transpose(Image.Transpose.ROTATE_90), moved)

    def flip(self, image: Image.Image) -> Edited:
        """Mirrored."""
        return Edited(ImageOps.mirror(image), np.array([[-1.0, 0, image.width], [0, 1, 0], [0, 0, 1]]))

    def upside_down(self, image: Image.Image) -> Edited:
        """Flipped upside down."""
        return Edited(ImageOps.flip(image), np.array([[1.0, 0, 0], [0, -1, image.height], [0, 0, 1]]))

    def border(self, image: Image.Image) -> Edited:
        """A border of one colour, a tenth to a quarter of the width and height on each side."""
        x, y = (int(self.random.uniform(0.1, 0.25) * side) for side in image.size)
        colour = tuple(int(c) for c in self.random.integers(0, 256, 3))
        return Edited(ImageOps.expand(image, (x, y, x, y), colour), shift(x, y), _inside(image, x, y))

    def letterbox(self, image: Image.Image) -> Edited:
        """Black bars above and below a wide picture to 1 : 1, beside a high one to 16 : 9."""
        width, height = image.size
        size = (width, max(width, round(height * 1.2))) if width >= height else (height * 16 // 9, height)
        x, y = (size[0] - width) // 2, (size[1] - height) // 2
        return Edited(_pasted(Image.new("RGB", size), image, x, y), shift(x, y), _inside(image, x, y))

    def text(self, image: Image.Image) -> Edited:
        """Three lines of text."""
        image = image.copy()
        draw = ImageDraw.Draw(image)
        for _ in range(3):
            size = max(int(image.height * self.random.uniform(0.08, 0.14)), 8)
            x, y = self.random.uniform(0, 0.4) * image.width, self.random.uniform(0, 0.85) * image.height
            words = " ".join(self.random.choice(_WORDS, 3))
            draw.text((x, y), words, fill="white", stroke_width=size // 12, stroke_fill="black", font=_font(size))
        return Edited(image, np.eye(3))

    def emoji(self, image: Image.Image) -> Edited:
        """One to three round faces, each of a quarter to a half of the shorter side."""
        image = image.copy()
        for _ in range(int(self.random.integers(1, 4))):
            self._face(image)
        return Edited(image, np.eye(3))

    def _face(self, image: Image.Image) -> None:
        size = int(min(image.size) * self.random.uniform(0.25, 0.5))
        face = Image.new("RGBA", (128, 128))
        draw = ImageDraw.Draw(face)
        draw.ellipse((2, 2, 126, 126), fill=(255, 204, 77, 255), outline=(230, 160, 30, 255), width=3)
        for x in (42, 86):
            draw.ellipse((x - 9, 36, x + 9, 62), fill=(80, 50, 20, 255))
        draw.chord((28, 50, 100, 108), 10, 170, fill=(130, 60, 20, 255))
        face = face.rotate(float(self.random.uniform(-30, 30)), Image.Resampling.BICUBIC).resize((size, size))
        x, y = (int(self.random.uniform(0, 1) * (side - size)) for side in image.size)
        image.paste(face, (x, y), face)

    def meme(self, image: Image.Image) -> Edited:
        """A white bar with a line of text above the picture."""
        bar = int(image.height * self.random.uniform(0.15, 0.3))
        canvas = _pasted(Image.new("RGB", (image.width, image.height + bar), "white"), image, 0, bar)
        draw = ImageDraw.Draw(canvas)
        draw.text((bar // 5, bar // 5), " ".join(self.random.choice(_WORDS, 5)), fill="black", font=_font(bar // 2))
        return Edited(canvas, shift(0, bar), _inside(image, 0, bar))

    def screenshot(self, image: Image.Image) -> Edited:
        """On a telephone's screen, as wide as it, between bars, names and lines of text."""
        width, height = 720, 1480
        dark = self.random.random() < 0.5
        back, ink = ((18, 18, 20), (235, 235, 235)) if dark else ((255, 255, 255), (20, 20, 20))
        screen = Image.new("RGB", (width, height), back)
        scale = min(width / image.width, 0.68 * height / image.height)
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        x, y = (width - small.width) // 2, int(self.random.uniform(0.13, 0.17) * height)
        draw = ImageDraw.Draw(screen)
        draw.text((30, 14), "9:41", fill=ink, font=_font(26))
        draw.rectangle((640, 18, 690, 40), outline=ink, width=3)
        draw.ellipse((26, 90, 106, 170), fill=tuple(int(c) for c in self.random.integers(0, 256, 3)))
        draw.text((124, 96), " ".join(self.random.choice(_WORDS, 2)), fill=ink, font=_font(32))
        draw.text((124, 138), "2 h", fill=(130, 130, 130), font=_font(24))
        screen.paste(small, (x, y))
        line = y + small.height + 26
        for radius in (30, 110, 190):
            draw.ellipse((radius, line, radius + 46, line + 46), outline=ink, width=5)
        line += 76
        while line < height - 90:
            draw.text((30, line), " ".join(self.random.choice(_WORDS, 6)), fill=ink, font=_font(28))
            line += 44
        draw.rectangle((260, height - 22, 460, height - 14), fill=ink)
        moved = shift(x, y, small.width / image.width, small.height / image.height)
        return Edited(screen, moved, _inside(small, x, y))

    def pasted(self, image: Image.Image) -> Edited:
        """On another picture, 35 to 60 % of its area."""
        back = self.others()
        area = self.random.uniform(0.35, 0.6) * back.width * back.height
        scale = (area / (image.width * image.height)) ** 0.5
        scale = min(scale, 0.95 * back.width / image.width, 0.95 * back.height / image.height)
        if scale * scale * image.width * image.height < 0.34 * back.width * back.height:  # of very different shapes
            back = back.resize(image.size)
            scale = self.random.uniform(0.35, 0.6) ** 0.5
        small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        x, y = (int(self.random.uniform(0, 1) * (b - s)) for b, s in zip(back.size, small.size, strict=True))
        moved = shift(x, y, small.width / image.width, small.height / image.height)
        return Edited(_pasted(back, small, x, y), moved, _inside(small, x, y))

    def collage(self, image: Image.Image) -> Edited:
        """One of four pictures of equal size, cut to the shape of the first."""
        width, height = image.width // 2, image.height // 2
        tiles = [ImageOps.fit(self.others(), (width, height)) for _ in range(4)]
        place = int(self.random.integers(0, 4))
        tiles[place] = image.resize((width, height), Image.Resampling.LANCZOS)
        canvas = Image.new("RGB", (2 * width, 2 * height))
        for index, tile in enumerate(tiles):
            canvas.paste(tile, (index % 2 * width, index // 2 * height))
        x, y = place % 2 * width, place // 2 * height
        moved = shift(x, y, width / image.width, height / image.height)
        return Edited(canvas, moved, (x, y, x + width, y + height))

    def colours(self, image: Image.Image) -> Edited:
        """Brightness, contrast, saturation and hue changed at once."""
        image = ImageEnhance.Brightness(image).enhance(float(self.random.choice([0.7, 1.3])))
        image = ImageEnhance.Contrast(image).enhance(float(self.random.choice([0.7, 1.4])))
        image = ImageEnhance.Color(image).enhance(float(self.random.choice([0.4, 1.8])))
        hue, saturation, value = image.convert("HSV").split()
        by = int(self.random.integers(10, 30))
        hue = hue.point(lambda h: (h + by) % 256)
        return Edited(Image.merge("HSV", (hue, saturation, value)).convert("RGB"), np.eye(3))

    def grey(self, image: Image.Image) -> Edited:
        """Without colour."""
        return Edited(image.convert("L").convert("RGB"), np.eye(3))

    def blur(self, image: Image.Image) -> Edited:
        """Blurred."""
        return Edited(image.filter(ImageFilter.GaussianBlur(max(image.size) / 200)), np.eye(3))

    def noise(self, image: Image.Image) -> Edited:
        """Gaussian noise with a deviation of 25."""
        noisy = np.asarray(image, np.float64) + self.random.normal(0, 25, (image.height, image.width, 3))
        return Edited(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), np.eye(3))

    def rephotographed(self, image: Image.Image) -> Edited:
        """A photograph of a screen: askew, with a dark surround, uneven light, a little blur and noise."""
        width, height = image.size
        corners = _corners(width, height)
        margin = np.array([width, height]) * 0.12
        askew = corners + margin + self.random.uniform(-0.09, 0.09, (4, 2)) * [width, height]
        moved = cv2.getPerspectiveTransform(corners.astype(np.float32), askew.astype(np.float32)).astype(np.float64)
        size = (round(width * 1.24), round(height * 1.24))
        photo = np.asarray(_warp(image, moved, size, (28, 26, 30)), np.float64)
        light = np.linspace(self.random.uniform(0.7, 1.0), self.random.uniform(1.0, 1.25), size[0])[np.newaxis, :, None]
        photo = photo * light + self.random.normal(0, 8, photo.shape)
        out = Image.fromarray(np.clip(photo, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2))
        return Edited(out, moved, jpeg=70)

    def crop_flip_emoji(self, image: Image.Image) -> Edited:
        """Cropped, mirrored, pasted over, recompressed."""
        cropped = self._crop(image, 0.75)
        flipped = self.flip(cropped.image)
        overlaid = self.emoji(flipped.image)
        return Edited(overlaid.image, flipped.moved @ cropped.moved, jpeg=50)

    def crop_turn_text(self, image: Image.Image) -> Edited:
        """Cropped, turned, written on, recompressed."""
        cropped = self._crop(image, 0.8)
        turned = self._rotate(cropped.image, 10)
        written = self.text(turned.image)
        seen_part = _project(turned.moved, _corners(*cropped.image.size))
        box = (*seen_part.min(axis=0), *seen_part.max(axis=0))
        return Edited(written.image, turned.moved @ cropped.moved, tuple(map(float, box)), jpeg=60)


EDITS = (
    *("jpeg30", "resize25", "crop70", "crop50", "crop40", "rotate5", "rotate15", "rotate25", "rotate90", "flip"),
    *("upside_down", "border", "letterbox", "text", "emoji", "meme", "screenshot", "pasted", "collage", "colours"),
    *("grey", "blur", "noise", "rephotographed", "crop_flip_emoji", "crop_turn_text"),
)
_WORDS = ("never", "again", "this", "summer", "the", "best", "of", "all", "cats", "when", "you", "see", "it", "wait")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(size, 6))


def _corners(width: float, height: float) -> F64:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def _project(matrix: F64, points: F64) -> F64:
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _warp(image: Image.Image, moved: F64, size: Sequence[int], fill: tuple[int, int, int]) -> Image.Image:
    flags = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_CONSTANT, "borderValue": fill}
    return Image.fromarray(cv2.warpPerspective(np.asarray(image), moved, (int(size[0]), int(size[1])), **flags))


def _pasted(back: Image.Image, image: Image.Image, x: int, y: int) -> Image.Image:
    back = back.copy()
    back.paste(image, (x, y))
    return back


def _inside(image: Image.Image, x: float, y: float) -> Box:
    return (x, y, x + image.width, y + image.height)


def true_boxes(size: tuple[int, int], edited: Edited) -> tuple[Box, Box]:
    """Where the original is seen in the edited picture, and which part of the original that is: fractions."""
    width, height = edited.image.size
    left, top, right, bottom = edited.seen or (0, 0, width, height)
    window = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    window = np.clip(window, 0, [width, height]).astype(np.float32)
    outline = _project(edited.moved, _corners(*size)).astype(np.float32)
    _, part = cv2.intersectConvexConvex(outline, window)
    part = part.reshape(-1, 2).astype(np.float64)
    source = _project(np.linalg.inv(edited.moved), part)
    return _bounds(part / [width, height]), _bounds(source / size)


def _bounds(points: F64) -> Box:
    low, high = np.clip(points.min(axis=0), 0, 1), np.clip(points.max(axis=0), 0, 1)
    return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


@dataclass(frozen=True)
class Query:
    """An edited picture as a file: its class, its original's number (None: a distractor) and the true boxes."""

    name: str
    edit: str
    original: int | None
    content: bytes
    query_box: Box = (0, 0, 1, 1)
    reference_box: Box = (0, 0, 1, 1)


def make_queries(originals: Sequence[Picture], spare: Sequence[Picture], only: int | None = None) -> Iterator[Query]:
    """Every edit of each original, and as many edits of `spare` pictures, which also lend what is pasted around.

    only: the number of the one original wanted.
    """

    def make(picture: Picture, edit: str, original: int | None, number: int) -> Query:
        random = np.random.default_rng([number, EDITS.index(edit), original is None])

        def other() -> Image.Image:
            while True:
                chosen = spare[int(random.integers(0, len(spare)))]
                if chosen.path != picture.path:
                    image = load(chosen.path)
                    image.thumbnail((800, 800))
                    return image

        image = load(picture.path)
        edited: Edited = getattr(Editor(random, other), edit)(image)
        buffer = io.BytesIO()
        edited.image.save(buffer, "JPEG", quality=edited.jpeg)
        boxes = true_boxes(image.size, edited)
        return Query(f"{edit} of {picture.path.name}", edit, original, buffer.getvalue(), *boxes)

    for number, picture in enumerate(originals):
        for edit in EDITS if only in (None, number) else ():
            yield make(picture, edit, number, number)
            yield make(spare[number % len(spare)], edit, None, number)


# ---- finding


class Ours:
    """The image fingerprint, the index and the verification, as a user's query goes through them."""

    name = "ours"

    def __init__(self) -> None:
        self.plugin, self.models, self.store = ImagePlugin(), ModelRuntime("cpu"), ExactStore()
        self.number: dict[str, int] = {}
        self.cpu = dict.fromkeys(("decode", "embed", "hash", "find"), 0.0)
        self.asked = 0

    def fingerprint(self, content: bytes, name: str, folder: Path) -> Fingerprint:
        """The fingerprint of a file's bytes."""
        path = folder / "picture"
        path.write_bytes(content)
        _, sketch = through_stages(self.plugin, path, self.models, self.cpu)
        digest = hashlib.sha256(content).hexdigest()
        return Fingerprint(Content(name, f"file:///{name}", "image"), digest, len(content), "", digest, sketch)

    def add(self, number: int, content: bytes, folder: Path) -> None:
        """Store a reference."""
        self.number[str(number)] = number
        self.store.put([self.fingerprint(content, str(number), folder)])

    def find(self, query: Query, folder: Path) -> list[tuple[int, Match]]:
        """Every reference found, with its best match."""
        fingerprint = self.fingerprint(query.content, query.name, folder)
        with added(self.cpu, "find"):
            matches = find_copies(self.store, self.plugin, fingerprint, 20)
        self.asked += 1
        best: dict[int, Match] = {}
        for match in matches:
            best.setdefault(self.number[match.reference.content_id], match)
        return list(best.items())


class Hashes:
    """References compared with every query by the Hamming distance of a hash from another package."""

    def __init__(self, name: str, of: Callable[[Image.Image], F64], orientations: int) -> None:
        self.name, self._of, self._orientations = name, of, orientations
        self._stored: list[F64] = []

    def add(self, image: Image.Image) -> None:
        """Store a reference."""
        self._stored.append(self._of(image)[0])

    def find(self, query: Query) -> F64:
        """The similarity to each reference, 0..1."""
        asked = self._of(Image.open(io.BytesIO(query.content)).convert("RGB"))
        different = (asked[:, np.newaxis] != np.stack(self._stored)).mean(axis=2).min(axis=0)
        return np.asarray(1 - different)


def pdq_hashes(image: Image.Image) -> F64:
    """Meta's PDQ in eight orientations: [8, 256] bits."""
    return np.asarray(pdqhash.compute_dihedral(np.asarray(image))[0])


def p_hash(image: Image.Image) -> F64:
    """pHash of imagehash: [1, 64] bits."""
    return imagehash.phash(image).hash.reshape(1, -1)


# ---- the figures


def average_precision(scores: F64, right: NDArray[np.bool_], positives: int) -> float:
    """DISC's micro average precision: of all pairs in one ranking. Pairs that were not found (score 0) do not count."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    hits = right[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / max(positives, 1))


def recall_at(scores: F64, right: NDArray[np.bool_], positives: int, precision: float) -> float:
    """The greatest recall of a ranking cut where its precision is at least this."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > 0]
    ranked = scores[order]
    hits = np.cumsum(right[order])
    good = hits / np.arange(1, len(hits) + 1) >= precision
    # Pairs of one score are found together.
    good &= np.append(ranked[:-1] != ranked[1:], True) if len(ranked) else good
    return float(hits[good].max(initial=0) / max(positives, 1))


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / max(areas - shared, 1e-9)


def table(queries: Sequence[Query], scores: F64, ignored: NDArray[np.bool_], overlaps: dict[int, float]) -> None:
    """Print the figures of one method. scores: [queries, references], 0 where nothing was found."""
    originals = np.array([-1 if query.original is None else query.original for query in queries])
    edits = np.array([query.edit for query in queries])
    copies = np.flatnonzero(originals >= 0)
    right = np.zeros(scores.shape, np.bool_)
    right[copies, originals[copies]] = True
    scores = np.where(ignored, 0, scores)
    false = scores[~right].max()
    print(f"{'':18}{'R@1':>7}{'uAP':>7}{'R@P.99':>8}{'R@0FP':>7}{'IoU':>7}")
    for edit in (*EDITS, "all"):
        asked = copies if edit == "all" else copies[edits[copies] == edit]
        pool = np.concatenate([asked, np.flatnonzero(originals < 0)])
        truth = originals[asked]
        own = scores[asked, truth]
        first = (own > 0) & (own >= scores[asked].max(axis=1))
        flat, hits = scores[pool].ravel(), right[pool].ravel()
        overlap = [overlaps[index] for index in asked if index in overlaps]
        row = (
            first.mean(),
            average_precision(flat, hits, len(asked)),
            recall_at(flat, hits, len(asked), 0.99),
            (own > false).mean(),
        )
        box = f"{np.median(overlap):7.2f}" if overlap else f"{'-':>7}"
        print(f"{edit:18}{row[0]:7.3f}{row[1]:7.3f}{row[2]:8.3f}{row[3]:7.3f}{box}")


def same_picture(one: Picture, other: Picture) -> bool:
    """Whether two pictures are known to show the same: such a pair counts neither way."""
    return any({one.path.name[:10], other.path.name[:10]} == pair for pair in SAME)


def main() -> None:
    """Make the queries, ask them all, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--quick", action="store_true", help="few queries")
    parser.add_argument("--originals", type=int, help="references that are edited (40)")
    parser.add_argument("--fit-list", action="store_true", help="print the pictures to fit on, and nothing else")
    arguments = parser.parse_args()
    if arguments.fit_list:
        for picture in pictures(arguments.folder, arguments.manifest, "fit", per_package=FIT_PER_PACKAGE):
            print(picture.path)
        return
    cv2.setNumThreads(1)
    references = pictures(arguments.folder, arguments.manifest, "reference", REFERENCES_STORED, PER_PACKAGE)
    spare = pictures(arguments.folder, arguments.manifest, "distractor", REFERENCES_STORED, PER_PACKAGE)
    edited = references[: arguments.originals or (6 if arguments.quick else 40)]
    ours = Ours()
    peers = [Hashes("PDQ", pdq_hashes, 8), Hashes("pHash", p_hash, 1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, picture in enumerate(references):
            ours.add(number, picture.path.read_bytes(), folder)
            for peer in peers:
                peer.add(load(picture.path))
        stored = len(references)
        cpu = {stage: ours.cpu[stage] / stored * 1000 for stage in ("decode", "embed", "hash")}
        queries = [query for number in range(len(edited)) for query in make_queries(edited, spare, number)]
        scores = np.zeros((1 + len(peers), len(queries), stored))
        overlaps: dict[int, float] = {}
        evidence: Counter[str] = Counter()
        for index, query in enumerate(queries):
            for number, match in ours.find(query, folder):
                scores[0, index, number] = match.score
                if number == query.original:
                    evidence[match.evidence] += 1
                    sides = ((match.query_box, query.query_box), (match.reference_box, query.reference_box))
                    overlaps[index] = min(iou(found or (0, 0, 1, 1), truth) for found, truth in sides)
            for row, peer in enumerate(peers, 1):
                scores[row, index] = peer.find(query)
    copies = sum(query.original is not None for query in queries)
    print(
        f"{stored} references; queries: {copies} edits of {len(edited)} of them, {len(queries) - copies} of distractors"
    )
    print("CPU ms a reference: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in cpu.items()), end="; ")
    print(f"to find one query's copies: {ours.cpu['find'] / len(queries) * 1000:.1f}")
    print("evidence of the copies found: " + ", ".join(f"{name} {count}" for name, count in evidence.most_common()))
    ignored = np.zeros(scores[0].shape, np.bool_)
    for index, query in enumerate(queries):
        if query.original is not None:
            ignored[index] = [same_picture(references[query.original], other) for other in references]
    for row, method in enumerate((ours, *peers)):
        print(f"\n{method.name}")
        table(queries, scores[row], ignored, overlaps if row == 0 else {})
    false = np.where(ignored, 0, scores[0])
    for index, query in enumerate(queries):
        if query.original is not None:
            false[index, query.original] = 0
    worst = np.argsort(-false.ravel(), kind="stable")[:5]
    print("\nour best scores of wrong pairs")
    for index, number in zip(*np.unravel_index(worst, false.shape), strict=True):
        print(f"{false[index, number]:.3f} {queries[index].name} | {references[number].path.name}")


if __name__ == "__main__":
    main()
