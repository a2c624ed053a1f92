"""The interface of a content type. Everything the pipeline knows of images, audio, video or text passes here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fingerprint_dagster.content import Fingerprint, Match, Sketch, Value

if TYPE_CHECKING:
    from fingerprint_dagster.models import ModelRuntime


class ContentTypePlugin(ABC):
    """One content type: how to recognise it, and its three versioned, pure stages.

    A plugin is found through the entry-point group `fingerprint_dagster.content_types`, whose entries name a
    subclass that takes no arguments. Importing its module must be cheap: torch, av, librosa and the like are
    imported inside the methods that need them.

    name: the content type as users write it (`image`).
    extensions: file-name endings it claims, lower case, with the dot.
    batch_size: how many contents one batch (one Dagster partition) holds by default.
    versions: stage -> version, for "decode", "embed" and "hash". Change a version whenever the stage's output
        changes: it is part of the memo key, and what was computed under another version is never reused.
    parameters: stage -> settings of the plugin that change that stage's output; part of the memo key like a version.
    also_matches: other content types whose fingerprints `match` takes on either side (a video's frames are pictures).
    thresholds: evidence -> the least strength (see `Match`) that `match` takes for a copy; 0 where none is told.
    patience: how many candidates `match` refuses, one after the other, before the rest, which share less and less with
        the query, are left alone. More finds a little more, and takes longer.
    looked_at: where there are many candidates, most are there by chance, and do not stand out from the others
        (`fingerprint_dagster.search.outstanding`): how many of those are looked at, the first ones of all; and where
        a copy was found, how many more may be refused one after the other. None: all of them count as standing out.
    """

    name: ClassVar[str]
    extensions: ClassVar[frozenset[str]]
    batch_size: ClassVar[int]
    versions: ClassVar[Mapping[str, str]]
    parameters: Mapping[str, Mapping[str, Any]] = {}
    also_matches: ClassVar[frozenset[str]] = frozenset()
    thresholds: ClassVar[Mapping[str, float]] = {}
    patience: ClassVar[int] = 10
    looked_at: ClassVar[int | None] = None

    @abstractmethod
    def sniff(self, head: bytes) -> str | None:
        """The media type (`image/jpeg`) of the bytes that begin with `head`, or None if they are not of this type.

        `head` is the first 4,096 bytes, fewer where the content is shorter. Must not raise.
        """

    @abstractmethod
    def decode(self, path: Path) -> Value:
        """Decode the file into arrays. Runs in a worker process under a time and a memory limit.

        Raises `ContentError` for bytes it cannot or will not decode, with a reason for a person.
        """

    def embed(self, decoded: Sequence[Value], models: ModelRuntime) -> list[Value]:
        """Vectors for a batch of decoded contents, in order, made on the model runtime's device.

        The default is for a content type without a model: an empty value each.
        """
        return [Value() for _ in decoded]

    @property
    def has_model(self) -> bool:
        """Whether the embed stage needs torch; by default, whether the plugin has an embed stage of its own."""
        return type(self).embed is not ContentTypePlugin.embed

    @abstractmethod
    def hash(self, decoded: Value, embedded: Value) -> Sketch:
        """The components of the fingerprint, from the arrays and the vectors of one content."""

    @abstractmethod
    def match(self, query: Fingerprint, reference: Fingerprint) -> list[Match]:
        """Compare two fingerprints of this type, or one of it with one of `also_matches`: the verifying stage.

        Returns every part found to be a copy, best first; an empty list where it is none.
        Equal digests are handled before this is called.
        """

    def strengths(self, query: Fingerprint, reference: Fingerprint) -> dict[str, float]:
        """Evidence -> how much of it these two give, also where that is too little for a match: calibration needs it.

        By default, what `match` accepts; then nothing can be told of what lies beyond the noise that was measured.
        """
        found: dict[str, float] = {}
        for match in self.match(query, reference):
            strength = match.score if match.strength is None else match.strength
            found[match.evidence] = max(strength, found.get(match.evidence, 0.0))
        return found

    def interchange(self, fingerprint: Fingerprint) -> dict[str, str]:
        """The fingerprint in the forms that other programs read, by their names. By default there are none."""
        return {}
