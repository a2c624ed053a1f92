"""Pictures: decoded to RGB of at most 512 pixels, hashed with PDQ, described by a convolutional network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fingerprint_dagster.content import Component, Fingerprint, Match, Sketch, Value
from fingerprint_dagster.media.image import decode, iscc, local_features, match, pdq, phash
from fingerprint_dagster.media.image.network import NetworkPlugin

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime

__all__ = ["ImagePlugin"]


class ImagePlugin(NetworkPlugin):
    """The content type `image`.

    decode: see `decode.decode`.
    embed: arrays {MODEL: float32 [1, dim]}, of length 1; MODEL is the versioned name of the network that the settings
        choose, by default "efficientnet_lite0_gem_w512_v1" with 512 numbers.
    hash: the components
        "pdq_v1" (hamming, uint8 [8, 32]): the hash in eight orientations; the upright one is found, all are asked;
        MODEL (signs, uint8 [1, dim / 8]) and MODEL_int8 (data, int8 [1, dim]): the descriptor;
        "local_words_v1" (tokens, uint64 [n]) and "local_features_v1" (data, uint8 [n, 38]): up to 256 local features;
        "phash64_v1" and "iscc_image_v0" (data, uint8 [1, 8]): for exchange with others;
    and the info {"width", "height", "quality" (PDQ's, 0..100), "features", "iscc" (its text), "iscc_exact" (see
    `decode.decode`), "low_information"}. Hash and descriptor of a picture of low quality are not looked up, nor are the
    words of one with few features; where none is, the picture has low information.
    """

    name: ClassVar[str] = "image"
    extensions: ClassVar[frozenset[str]] = decode.EXTENSIONS
    batch_size: ClassVar[int] = 1000
    versions: ClassVar[Mapping[str, str]] = {
        "decode": decode.VERSION,
        "embed": "image_descriptor_v1",
        "hash": "+".join(m.ALGORITHM for m in (pdq, local_features, phash, iscc)),
    }

    thresholds: ClassVar[Mapping[str, float]] = {
        pdq.ALGORITHM: 1 - pdq.MAX_DISTANCE / 256,
        local_features.ALGORITHM: match.MIN_SUPPORT,
    }
    # Of 1,040 edited pictures among 200, the originals of 1,030 are among the first five candidates, of 1,028 among the
    # first five that stand out, at 2.6 looked at of a picture without copies. Of 498 among a million: 311; 314, at 1.4.
    patience: ClassVar[int] = 5
    looked_at: ClassVar[int | None] = 1

    def sniff(self, head: bytes) -> str | None:
        """The media type by magic bytes."""
        return decode.sniff(head)

    def decode(self, path: Path) -> Value:
        """See `decode.decode`."""
        return decode.decode(path)

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """One descriptor each, of the picture squashed to a square."""
        if not decoded:
            return []
        from fingerprint_dagster.models.efficientnet_lite import model_input

        spec, side = self._model.spec, self._model.side
        # In rows of pixels, as the network takes them fastest.
        rows = np.stack([model_input(value.arrays["rgb"], side).transpose(1, 2, 0) for value in decoded])
        vectors = models.embed(spec, rows.transpose(0, 3, 1, 2))
        return [Value({spec.name: each.reshape(-1, each.shape[-1])}) for each in vectors]

    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """The components: see the class."""
        rgb = decoded.arrays["rgb"]
        hashes, quality = pdq.pdq_dihedral_v1(rgb)
        features, words = local_features.local_features_v1(rgb)
        ((model, vectors),) = embedded.arrays.items()
        code, text = iscc.iscc_image_v0(decoded.arrays["iscc_grey"])
        detailed, textured = quality >= pdq.MIN_QUALITY, len(features) >= match.MIN_FEATURES
        upright = np.arange(len(hashes)) == 0
        return Sketch(
            (
                Component(
                    pdq.ALGORITHM,
                    "hamming",
                    hashes,
                    searchable=upright & detailed,
                    asked=np.full(len(hashes), detailed),
                ),
                Component(
                    model,
                    "signs",
                    np.packbits(vectors > 0, axis=1),
                    searchable=np.full(len(vectors), detailed),
                ),
                Component(match.exact(model), "data", match.as_int8(vectors)),
                Component(local_features.WORDS_ALGORITHM, "tokens", words, searchable=np.full(len(words), textured)),
                Component(local_features.ALGORITHM, "data", local_features.pack(features)),
                Component(phash.ALGORITHM, "data", phash.phash64_v1(rgb)[np.newaxis]),
                Component(iscc.ALGORITHM, "data", code[np.newaxis]),
            ),
            {
                "width": decoded.info["width"],
                "height": decoded.info["height"],
                "quality": quality,
                "features": len(features),
                "iscc": text,
                "iscc_exact": decoded.info["iscc_exact"],
                "low_information": not (detailed or textured),
            },
        )

    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """See `match.match`."""
        return match.match(query, reference)

    def strengths(self, query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
        """See `match.strengths`."""
        return match.strengths(query, reference)

    def interchange(self, fingerprint: Fingerprint) -> dict[str, str]:
        """`pdq` and `phash` in hexadecimal, as their reference implementations write them; `iscc`: the Image-Code."""
        forms = {"pdq": pdq.ALGORITHM, "phash": phash.ALGORITHM}
        components = {name: fingerprint.component(algorithm) for name, algorithm in forms.items()}
        told = {name: each.values[0].tobytes().hex() for name, each in components.items() if each is not None}
        return told | {"iscc": fingerprint.sketch.info["iscc"]}
