"""Fingerprints of texts made up for the tests, real ones but without a file."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from fingerprint_dagster.content import Content, Fingerprint, Value
from fingerprint_dagster.media.text import TextPlugin

_SYLLABLES = ["ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu"]
_PLUGIN = TextPlugin()


def words(seed: int, count: int = 300) -> list[str]:
    """Words that no other seed gives in this order."""
    chance = random.Random(seed)
    return ["".join(chance.choices(_SYLLABLES, k=chance.randint(2, 4))) for _ in range(count)]


def edited(original: Sequence[str], seed: int, share: float = 0.05) -> list[str]:
    """The same words with a share of them replaced."""
    chance = random.Random(seed)
    return [word if chance.random() >= share else "changed" + chance.choice(_SYLLABLES) for word in original]


def text(content_id: str, content: Sequence[str] | str, uri: str | None = None, **metadata: Any) -> Fingerprint:
    """The fingerprint of that text."""
    written = content if isinstance(content, str) else " ".join(content)
    data = written.encode()
    info = {"media": "text/plain", "encoding": "utf-8", "characters": len(written), "flags": []}
    decoded = Value({"text": np.frombuffer(data, np.uint8)}, info)
    digest = hashlib.sha256(data).hexdigest()
    address = uri or f"file:///texts/{content_id}.txt"
    key = hashlib.sha256(f"{digest} {address} {metadata}".encode()).hexdigest()[:32]
    sketch = _PLUGIN.hash(decoded, Value())
    return Fingerprint(Content(content_id, address, "text", metadata), digest, len(data), "text/plain", key, sketch)
