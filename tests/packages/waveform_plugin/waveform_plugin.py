"""A small content type that counts its calls and can be asked for trouble.

A `.wfm` file is a line `WAVEFORM`, then words separated by white space: numbers, and any of these troubles: in decode
`crash`, `hang`, `bad`, `oom`, `megabytes` (as many as the last number says) and `decode-error`; `embed-error`,
`hash-error` and `hash-crash`; `embed-junk` and `hash-junk` (values
that cannot be stored). `moody` is bad while a file of its name with the ending `.mood` is there.
Every call of `sniff` and of a stage appends a line `stage digest pid warm|cold` to the file named by WAVEFORM_CALLS.
WAVEFORM_DECODE_VERSION, WAVEFORM_EMBED_VERSION and WAVEFORM_HASH_VERSION override the versions, WAVEFORM_BINS the one
parameter of the hash stage. With WAVEFORM_EMBED_HANGS set, embed does not end.
"""

import hashlib
import os
import signal
import sys
import time

import numpy as np

from fingerprint_dagster.content import Component, Match, Sketch, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.plugin import ContentTypePlugin

MAGIC = b"WAVEFORM\n"
DIMENSIONS = 8


def _count(stage, digest):
    path = os.environ.get("WAVEFORM_CALLS")
    if path:
        with open(path, "a") as calls:
            warm = "fingerprint_dagster.jobs.warm" in sys.modules
            calls.write(f"{stage} {digest} {os.getpid()} {'warm' if warm else 'cold'}\n")


class WaveformPlugin(ContentTypePlugin):
    """Waveforms that share numbers are copies."""

    name = "waveform"
    extensions = frozenset({".wfm"})
    batch_size = 100
    has_model = False  # Its vectors come from numpy alone.

    @property
    def versions(self):
        return {
            stage: os.environ.get(f"WAVEFORM_{stage.upper()}_VERSION", "1") for stage in ("decode", "embed", "hash")
        }

    @property
    def parameters(self):
        return {"hash": {"bins": int(os.environ.get("WAVEFORM_BINS", "1000"))}}

    def sniff(self, head):
        if not head.startswith(MAGIC):
            return None
        _count("sniff", hashlib.sha256(head).hexdigest())
        return "application/x-waveform"

    def decode(self, path):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        _count("decode", digest)
        words = data.removeprefix(MAGIC).decode(errors="replace").split()
        if "crash" in words:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in words:
            time.sleep(3600)
        if "bad" in words:
            raise ContentError("the waveform is bad")
        if "moody" in words and path.with_suffix(".mood").exists():
            raise ContentError("not now, not ever")
        if "oom" in words:
            np.empty(1 << 40, np.uint8)
        if "megabytes" in words:
            np.ones(int(words[-1]) << 20, np.uint8)
        if "decode-error" in words:
            raise RuntimeError("the decoder stumbled")
        try:
            samples = np.array([float(word) for word in words if not word[0].isalpha()])
        except ValueError as error:
            raise ContentError(f"not a number: {error}") from error
        return Value({"samples": samples}, {"digest": digest, "words": words})

    def embed(self, decoded, models):
        for value in decoded:
            _count("embed", value.info["digest"])
        if os.environ.get("WAVEFORM_EMBED_HANGS"):
            time.sleep(3600)
        if any("embed-error" in value.info["words"] for value in decoded):
            raise RuntimeError("the model stumbled")
        return [self._vector(value) for value in decoded]

    def _vector(self, value):
        if "embed-junk" in value.info["words"]:
            return Value({}, {"what JSON does not know": {1, 2}})
        vector = np.resize(np.append(value.arrays["samples"], 1.0), DIMENSIONS)
        return Value({"vector": (vector / np.linalg.norm(vector)).astype(np.float32)[None]})

    def hash(self, decoded, embedded):
        _count("hash", decoded.info["digest"])
        if "hash-crash" in decoded.info["words"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hash-error" in decoded.info["words"]:
            raise ValueError("no hash for this")
        bins = self.parameters["hash"]["bins"]
        tokens = np.unique(np.round(decoded.arrays["samples"] * bins).astype(np.int64).view(np.uint64))
        return Sketch(
            (
                Component("waveform_tokens_v1", "tokens", tokens),
                Component("waveform_vector_v1", "cosine", embedded.arrays["vector"]),
            ),
            {
                "samples": len(decoded.arrays["samples"]),
                "low_information": not len(tokens),
                **({"junk": {1, 2}} if "hash-junk" in decoded.info["words"] else {}),
            },
        )

    def match(self, query, reference):
        one, other = (each.component("waveform_tokens_v1").values for each in (query, reference))
        union = len(np.union1d(one, other))
        score = len(np.intersect1d(one, other)) / union if union else 0.0
        return [Match(reference.content, score, "waveform_tokens_v1")] if score >= 0.5 else []
