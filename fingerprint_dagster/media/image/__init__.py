"""Pictures: decoded to RGB of at most 512 pixels, hashed with PDQ, described by a convolutional network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.image import decode, match, pdq
from fingerprint_dagster.media.plugin import ContentTypePlugin

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

__all__ = ["ImagePlugin"]


class ImagePlugin(ContentTypePlugin):
    """The content type `image`.

    decode: arrays {"rgb": uint8 [h, w, 3], no side above 512}, info {"width", "height", "format"}.
    embed: arrays {"efficientnet_lite0_gem_v1": float32 [1, 1280]}, of length 1.
    hash: the components "pdq_v1" (hamming, uint8 [1, 32]), "pdq_dihedral_v1" (data, uint8 [8, 32]: the picture's hash
        in its eight orientations) and "efficientnet_lite0_gem_v1" (cosine, float32 [1, 1280]); info {"width", "height",
        "quality" (PDQ's, 0..100), "low_information"}. With low information no row is searchable.
    """

    name: ClassVar[str] = "image"
    extensions: ClassVar[frozenset[str]] = decode.EXTENSIONS
    batch_size: ClassVar[int] = 1000
    versions: ClassVar[Mapping[str, str]] = {
        "decode": decode.VERSION,
        "embed": match.EMBEDDING,
        "hash": f"{pdq.ALGORITHM}+{pdq.DIHEDRAL_ALGORITHM}",
    }

    def sniff(self, head: bytes) -> str | None:
        """The media type by magic bytes."""
        return decode.sniff(head)

    def decode(self, path: Path) -> Value:
        """See `decode.decode`."""
        return decode.decode(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """One descriptor each: the picture squashed to 224 x 224, through EfficientNet-Lite0."""
        if not decoded:
            return []
        from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_V1, model_input

        inputs = np.stack([model_input(value.arrays["rgb"]) for value in decoded])
        vectors = models.embed(EFFICIENTNET_LITE0_GEM_V1, inputs)
        return [Value({EFFICIENTNET_LITE0_GEM_V1.name: vector[np.newaxis]}) for vector in vectors]

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """The perceptual hash in eight orientations, and the descriptor."""
        hashes, quality = pdq.pdq_dihedral_v1(decoded.arrays["rgb"])
        searchable = np.array([quality >= pdq.MIN_QUALITY])
        return Sketch(
            (
                Component(pdq.ALGORITHM, "hamming", hashes[:1], searchable=searchable),
                Component(pdq.DIHEDRAL_ALGORITHM, "data", hashes),
                Component(match.EMBEDDING, "cosine", embedded.arrays[match.EMBEDDING], searchable=searchable),
            ),
            {
                "width": decoded.info["width"],
                "height": decoded.info["height"],
                "quality": quality,
                "low_information": quality < pdq.MIN_QUALITY,
            },
        )

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """See `match.match`."""
        return match.match(query, reference)
