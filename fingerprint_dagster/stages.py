"""The five stages by name, version and key, and what a stage makes of a batch.

Each value's memo key is made of the stage, its version and parameters, and the keys of what it is made from; the first
of the chain is the SHA-256 of the content's bytes. So all keys of a content are known as soon as its bytes are: a
fingerprint that is in the memo is found without decoding, equal bytes under two URIs are worked on once, and a new
version of one stage changes its own key and those below, never those above.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from fingerprint_dagster.content import Content, Failure
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_types

STAGES = ("download", "decode", "embed", "hash", "store")
DOWNLOAD_VERSION = "sha256_v1"
STORE_VERSION = "store_v1"
_json = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True)
class Entry:
    """One content on its way through the stages of a batch.

    digest, size, media_type: known from the download stage on. key: the memo key of its value in the latest stage.
    failure: why it went no further; the later stages pass it on untouched.
    """

    content: Content
    key: str = ""
    digest: str = ""
    size: int = 0
    media_type: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class StageResult:
    """What one stage made of one batch: an entry for every content, failed or not, in the batch's order.

    computed: contents worked on now, failed ones too. reused: contents whose result was there already: in the memo, in
    the store, or made for equal bytes in the same batch. seconds: wall time.
    """

    stage: str
    entries: tuple[Entry, ...]
    computed: int
    reused: int
    seconds: float

    @property
    def data_version(self) -> str:
        """A digest of the results: equal if and only if every content has the same value or the same failure."""
        digest = hashlib.blake2b(digest_size=16)
        for entry in self.entries:
            outcome = entry.key if entry.failure is None else f"{entry.failure.stage}: {entry.failure.reason}"
            digest.update(f"{entry.content.content_id}\0{outcome}\0".encode())
        return digest.hexdigest()

    @property
    def failures(self) -> list[Failure]:
        """The contents that are in quarantine, from this stage or one before it."""
        return [entry.failure for entry in self.entries if entry.failure is not None]

    @property
    def passed(self) -> list[Entry]:
        """The entries that have a value."""
        return [entry for entry in self.entries if entry.failure is None]


def memo_key(stage: str, plugin: ContentTypePlugin, *inputs: str) -> str:
    """The key of a stage's value: 32 hexadecimal digits over stage, content type, version, parameters and inputs."""
    version = DOWNLOAD_VERSION if stage == "download" else plugin.versions[stage]
    parts = [stage, plugin.name, version, plugin.parameters.get(stage, {}), *inputs]
    return hashlib.blake2b(_json(parts).encode(), digest_size=16).hexdigest()


def value_key(stage: str, plugin: ContentTypePlugin, digest: str) -> str:
    """The key of the value that `stage` (decode, embed or hash) makes of the bytes with that SHA-256."""
    decode = memo_key("decode", plugin, digest)
    if stage == "decode":
        return decode
    embed = memo_key("embed", plugin, decode)
    return embed if stage == "embed" else memo_key("hash", plugin, decode, embed)


def code_version(stage: str) -> str:
    """The version of a stage over all content types, for people and for Dagster: `audio=..., image=...`."""
    if stage in ("download", "store"):
        return DOWNLOAD_VERSION if stage == "download" else STORE_VERSION
    parts = []
    for plugin in content_types().values():
        parameters = plugin.parameters.get(stage)
        suffix = f"{json.dumps(dict(parameters), sort_keys=True)}" if parameters else ""
        parts.append(f"{plugin.name}={plugin.versions[stage]}{suffix}")
    return ", ".join(sorted(parts))


def asset_version(stage: str) -> str:
    """The code version of a stage's asset: `code_version`, and a digest of those of the stages before it.

    What a stage makes changes with each of them. So Dagster shows all that a new version makes out of date at once,
    not each asset only when the one before it has been made anew.
    """
    before = [code_version(each) for each in STAGES[: STAGES.index(stage)]]
    if not before:
        return code_version(stage)
    digest = hashlib.blake2b(json.dumps(before).encode(), digest_size=4).hexdigest()
    return f"{code_version(stage)} (after {digest})"


def recipe(plugin: ContentTypePlugin) -> str:
    """A digest of every stage version of a content type: a batch stored under it is up to date."""
    return memo_key("hash", plugin, value_key("hash", plugin, ""), DOWNLOAD_VERSION, STORE_VERSION)
