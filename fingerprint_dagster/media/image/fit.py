"""Fits what the picture fingerprint has learned: the whitening of the descriptor, and the bits and words of patches.

    python -m fingerprint_dagster.media.image.fit LIST FOLDER

LIST is a text file with one picture's path a line, FOLDER is where the two weight files are written. Each picture is
seen as it is and in four edited views: turned, scaled, cropped, moved, mirrored, a little askew, on another ground,
with other colours, blurred, noisy, recompressed. Everything random comes from fixed seeds: the same pictures in the
same order give the same weights, but for the rounding of another CPU.

The whitening: principal components of the descriptors of pictures and views, each divided by its standard deviation
(Jegou and Chum, "Negative evidences and co-occurences in image retrieval", 2012). The patches: see `local_features.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.image import decode, local_features

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]

VIEWS = 4
DIM = 512
WORD_DIM = 32  # projections that words are made of
CODEBOOK = 1024  # entries in each of the two codebooks
WHITENING = "efficientnet_lite0_whitening.safetensors"


def random_view(rgb: NDArray[np.uint8], random: np.random.Generator) -> tuple[NDArray[np.uint8], F64]:
    """An edited view, uint8 [h, w, 3], and float64 [3, 3]: where a point (x, y, 1) of the picture is in it."""
    import cv2

    height, width = rgb.shape[:2]
    side = int(random.integers(256, 513))
    share = side / max(height, width)
    size = (max(int(width * share), 32), max(int(height * share), 32))
    zoom = float(np.exp(random.uniform(np.log(0.45), np.log(1.9))))  # below 1 with a ground around, above 1 a crop
    kind = random.random()
    degrees = random.uniform(-180, 180) if kind < 0.4 else random.choice([90, 180, 270]) if kind < 0.5 else 0.0
    degrees += random.normal(0, 8)
    scale = zoom * share
    cosine, sine = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.array([[cosine, -sine], [sine, cosine]])
    if random.random() < 0.3:
        linear = linear @ np.diag([-1, 1])
    linear = linear @ (np.eye(2) + random.normal(0, 0.05, (2, 2)))
    focus = np.array([width, height]) * random.uniform(0.3, 0.7, 2)
    moved = np.eye(3)
    moved[:2, :2] = linear
    moved[:2, 2] = np.array(size) / 2 - linear @ focus
    askew = np.eye(3)
    askew[2, :2] = random.normal(0, 0.08, 2) / side
    moved = askew @ moved
    sharp = rgb if scale > 0.8 else cv2.GaussianBlur(rgb, (0, 0), 0.45 / scale)
    ground = random.integers(0, 256, 3) if random.random() < 0.5 else np.full(3, random.choice([0, 255]))
    view: NDArray[Any] = cv2.warpPerspective(
        sharp, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=ground.tolist()
    ).astype(np.float64)
    if random.random() < 0.6:
        view = (view - 128) * random.uniform(0.6, 1.4) + 128 + random.normal(0, 25)
    if random.random() < 0.4:
        view = view * random.uniform(0.8, 1.2, 3)
    if random.random() < 0.15:
        view = np.repeat(view.mean(axis=2, keepdims=True), 3, axis=2)
    if random.random() < 0.25:
        view = cv2.GaussianBlur(view, (0, 0), random.uniform(0.5, 2))
    if random.random() < 0.25:
        view = view + random.normal(0, random.uniform(4, 20), view.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(25, 95))]
    _, jpeg = cv2.imencode(".jpg", np.clip(view, 0, 255).astype(np.uint8), quality)
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8), moved


def patch_pairs(picture: NDArray[np.uint8], view: NDArray[np.uint8], moved: F64) -> tuple[F32, F32, bool]:
    """The vectors of the patches found in both, float32 [n, 128] twice, and whether the view is mirrored."""
    (points, sizes, angles, vectors), (others, other_sizes, other_angles, other_vectors) = (
        local_features.detect(image) for image in (picture, view)
    )
    if not len(points) or not len(others):
        return vectors[:0], other_vectors[:0], False
    side, other_side = max(picture.shape[:2]), max(view.shape[:2])
    homogeneous = np.column_stack([points * side, np.ones(len(points))]) @ moved.T
    depth = homogeneous[:, 2:]
    there = homogeneous[:, :2] / depth
    jacobian = (moved[None, :2, :2] - there[:, :, None] * moved[2, None, None, :2]) / depth[:, :, None]
    determinant = np.linalg.det(jacobian)
    size_there = sizes * side * np.sqrt(np.abs(determinant))
    axis = np.einsum("nij,nj->ni", jacobian, np.column_stack([np.cos(angles), np.sin(angles)]))
    angle_there = np.arctan2(axis[:, 1], axis[:, 0])
    apart = np.linalg.norm(there[:, None] - others[None] * other_side, axis=2) / size_there[:, None]
    scaled = np.abs(np.log(size_there[:, None] / (other_sizes * other_side)[None]))
    turned = np.abs(np.angle(np.exp(1j * (angle_there[:, None] - other_angles[None]))))
    cost = np.where((apart < 0.5) & (scaled < 0.35) & (turned < 0.4), apart / 0.5 + scaled / 0.35 + turned / 0.4, 9.0)
    nearest = cost.argmin(axis=1)
    same = (cost.min(axis=1) < 9) & (cost.argmin(axis=0)[nearest] == np.arange(len(points)))
    return vectors[same], other_vectors[nearest[same]], bool(determinant[0] < 0)


def fit_local_features(pairs: Sequence[tuple[F32, F32, bool]]) -> dict[str, F32]:
    """The direction, thresholds, projections and codebooks of `local_features.py`, from pairs of one place."""
    mirrored = local_features.mirrored
    first = np.concatenate([mirrored(one) if flipped else one for one, _, flipped in pairs]).astype(np.float64)
    second = np.concatenate([other for _, other, _ in pairs]).astype(np.float64)
    # The direction in which what mirroring changes differs most, by its difference within a pair.
    odd, other_odd = (vectors - mirrored(vectors) for vectors in (first, second))
    direction = _discriminants(odd, other_odd, 1, centred=False)[0][:, 0]
    one, one_turned = local_features.canonical(first, direction)
    two, two_turned = local_features.canonical(second, direction)
    agree = one_turned == two_turned
    one, two = one[agree], two[agree]
    both = np.concatenate([one, two])
    projection, ratios = _discriminants(one, two, WORD_DIM)
    projection = projection * np.sqrt(np.maximum(ratios - 0.5, 0) / ratios)
    # Each codebook gets every other projection, so both know equally much.
    projected = ((both - both.mean(axis=0)) @ projection).astype(np.float32)
    low, high = np.quantile(both, [1 / 3, 2 / 3], axis=0)
    return {
        "direction": direction.astype(np.float32),
        "low": low.astype(np.float32),
        "high": high.astype(np.float32),
        "mean": both.mean(axis=0).astype(np.float32),
        "projection": projection.astype(np.float32),
        "codebook0": _k_means(projected[:, 0::2], CODEBOOK),
        "codebook1": _k_means(projected[:, 1::2], CODEBOOK),
    }


def _discriminants(one: F64, two: F64, dim: int, *, centred: bool = True) -> tuple[F64, F64]:
    """The `dim` directions in which pairs differ least by how much everything differs, and that ratio of each."""
    both = np.concatenate([one, two])
    if centred:
        both = both - both.mean(axis=0)
    within = (one - two).T @ (one - two) / len(one)
    within += 1e-3 * np.trace(within) / len(within) * np.eye(len(within))
    inverse = np.linalg.inv(np.linalg.cholesky(within))
    ratios, vectors = np.linalg.eigh(inverse @ (both.T @ both / len(both)) @ inverse.T)
    order = np.argsort(-ratios)[:dim]
    return inverse.T @ vectors[:, order], ratios[order]


def _k_means(points: F32, number: int, rounds: int = 15) -> F32:
    random = np.random.default_rng(0)
    centres = points[random.choice(len(points), number, replace=False)]
    for _ in range(rounds):
        chunks = np.array_split(points, max(len(points) // 8192, 1))
        nearest = np.concatenate([(c @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1) for c in chunks])
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        counts = np.bincount(nearest, minlength=number)[:, None]
        lost = points[random.choice(len(points), number)]
        centres = np.where(counts > 0, sums / np.maximum(counts, 1), lost).astype(np.float32)
    return centres


def fit_whitening(descriptors: F32) -> dict[str, NDArray[Any]]:
    """The mean, float32 [1280], and projection, float16 [512, 1280], of descriptors of length 1, float32 [n, 1280]."""
    mean = descriptors.astype(np.float64).mean(axis=0)
    centred = descriptors - mean
    variances, components = np.linalg.eigh(centred.T @ centred / len(centred))
    order = np.argsort(-variances)[:DIM]
    projection = components[:, order] / np.sqrt(np.maximum(variances[order], 1e-9))
    return {"mean": mean.astype(np.float32), "projection": np.ascontiguousarray(projection.T, dtype=np.float16)}


def seen(paths: Sequence[Path]) -> Iterator[tuple[NDArray[np.uint8], list[tuple[NDArray[np.uint8], F64]]]]:
    """Each picture that can be decoded, with its edited views."""
    for number, path in enumerate(paths):
        try:
            rgb = np.asarray(decode.decode(path).arrays["rgb"])
        except ContentError as error:
            sys.stderr.write(f"left out: {path}: {error}\n")
            continue
        random = np.random.default_rng([7, number])
        yield rgb, [random_view(rgb, random) for _ in range(VIEWS)]


def main() -> None:
    """Fit, and write the two files."""
    import cv2
    from safetensors.numpy import save_file

    from fingerprint_dagster.models import ModelRuntime
    from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_V2, model_input

    cv2.setNumThreads(1)
    paths = [Path(line) for line in Path(sys.argv[1]).read_text().splitlines() if line]
    models = ModelRuntime("cpu", "fp32")
    pairs: list[tuple[F32, F32, bool]] = []
    descriptors: list[F32] = []
    for rgb, views in seen(paths):
        pairs += [patch_pairs(rgb, view, moved) for view, moved in views]
        inputs = np.stack([model_input(image) for image in (rgb, *(view for view, _ in views))])
        descriptors.append(models.embed(EFFICIENTNET_LITE0_GEM_V2, inputs))
    folder = Path(sys.argv[2])
    whitening, patches = fit_whitening(np.concatenate(descriptors)), fit_local_features(pairs)
    save_file(whitening, folder / WHITENING)
    save_file(patches, folder / local_features.WEIGHTS)
    for name in (WHITENING, local_features.WEIGHTS):
        (folder / name).chmod(0o644)
        sys.stdout.write(f"{sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")


if __name__ == "__main__":
    main()
