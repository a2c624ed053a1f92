"""What `fingerprint doctor` looks at: can this machine do everything, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from fingerprint_dagster.errors import FingerprintError

if TYPE_CHECKING:
    from fingerprint_dagster.settings import Settings

_PACKAGES = (
    "dagster",
    "dagster-webserver",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "librosa",
    "av",
    "pillow",
    "lancedb",
)
_CODECS = ("h264", "hevc", "av1", "vp9", "mp3", "aac", "flac", "opus", "vorbis")
_LOW_DISK_BYTES = 5 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at. missing: something named in `text`, with its cure, keeps part of the system from working."""

    state: Literal["ok", "note", "missing"]
    subject: str
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; never raises for what it finds."""
    findings: list[Finding] = []
    for look in (_versions, _device, _content_types, _decoders, _sandbox, _weights, _home):
        try:
            findings.extend(look(settings))
        except (FingerprintError, ImportError, OSError) as error:
            findings.append(Finding("missing", look.__name__.strip("_").replace("_", " "), str(error)))
    return findings


def _versions(_: Settings) -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", package, f"not installed; pip install {package}")
    yield Finding("ok", "packages", ", ".join(found))


def _device(settings: Settings) -> Iterator[Finding]:
    from fingerprint_dagster.models import ModelRuntime
    from fingerprint_dagster.settings import available_cores

    described = ModelRuntime.of(settings).describe()
    yield Finding("ok", "models run on", ", ".join(f"{name} {value}" for name, value in described.items()))
    yield Finding("ok", "cores", f"{available_cores()}, {settings.run_count} batches at once")


def _content_types(_: Settings) -> Iterator[Finding]:
    from fingerprint_dagster.media.registry import content_types

    for plugin in content_types().values():
        versions = ", ".join(plugin.versions[stage] for stage in ("decode", "embed", "hash"))
        yield Finding("ok", f"content type {plugin.name}", f"{versions} ({len(plugin.extensions)} file endings)")


def _decoders(_: Settings) -> Iterator[Finding]:
    import av
    from PIL import features

    pictures = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP", "libtiff": "TIFF", "avif": "AVIF"}
    yield from _present("pictures", {name: bool(features.check(key)) for key, name in pictures.items()}, "pillow")
    yield from _present("HEIC pictures", {"HEIC": find_spec("pillow_heif") is not None}, "pillow-heif")
    if find_spec("pillow_jxl") is None:
        yield Finding("note", "JPEG XL pictures", "are not read; pip install pillow-jxl-plugin (GPL)")
    decoders = set(av.codecs_available)
    yield from _present("sound and video", {codec: codec in decoders for codec in _CODECS}, "av")


def _sandbox(_: Settings) -> Iterator[Finding]:
    from fingerprint_dagster.sandbox import PROTECTIONS, protections

    holding = protections()
    yield Finding(
        "ok", "decoders are confined by", ", ".join(name for name in PROTECTIONS if name in holding) or "nothing"
    )
    missing = [name for name in PROTECTIONS if name not in holding]
    if missing:
        cure = "run on Linux 5.13 or later, x86-64 or ARM64, with Landlock enabled"
        yield Finding("note", "decoders are not confined by", f"{', '.join(missing)}; {cure}")


def _present(subject: str, found: dict[str, bool], package: str) -> Iterator[Finding]:
    yield Finding("ok", subject, ", ".join(name for name, there in found.items() if there))
    missing = [name for name, there in found.items() if not there]
    if missing:
        yield Finding("missing", subject, f"no {', '.join(missing)}; pip install --upgrade {package}")


def _weights(settings: Settings) -> Iterator[Finding]:
    from fingerprint_dagster.models import weights
    from fingerprint_dagster.models.backbones import image_model

    weights.read(weights.EFFICIENTNET_LITE0, weights.EFFICIENTNET_LITE0_DIGEST)
    weights.read(weights.WHITENING, weights.WHITENING_DIGEST)
    spec = image_model(settings).spec
    yield Finding("ok", "pictures are described by", f"{spec.name}, weights {spec.digest[:12]}")


def _home(settings: Settings) -> Iterator[Finding]:
    from fingerprint_dagster.catalog import Catalog
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.pipeline import memo_of
    from fingerprint_dagster.sources.uri import without_password

    catalog = Catalog(settings.home)
    batches = catalog.batches()
    yield Finding(
        "ok", "home", f"{settings.home}: {len(batches)} batches, {sum(each.size for each in batches)} contents"
    )
    free = shutil.disk_usage(settings.home).free
    state: Literal["ok", "note"] = "ok" if free > _LOW_DISK_BYTES else "note"
    yield Finding(state, "disk", f"{free / 1e9:.0f} GB free; the memo may take {settings.memo_max_bytes / 1e9:.0f} GB")
    counts = open_store(settings.store_uri).count()
    described = ", ".join(f"{number} {name}" for name, number in counts.items()) or "empty"
    yield Finding("ok", "store", f"{without_password(settings.store_uri)}: {described}")
    usage = memo_of(settings).usage()
    megabytes = sum(each.bytes for each in usage.values()) / 1e6
    yield Finding("ok", "memo", f"{without_password(settings.memo_uri)}: {megabytes:.0f} MB")
    quarantined = len(catalog.quarantined())
    if quarantined:
        yield Finding("note", "quarantine", f"{quarantined} contents; see `fingerprint quarantine`")
    if os.environ.get("DAGSTER_HOME"):
        yield Finding("note", "dagster", f"DAGSTER_HOME is set: runs are kept in {os.environ['DAGSTER_HOME']}")
