"""Content fingerprinting for images, audio, video and text: find a copy again, where it is, and how sure."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fingerprint_dagster.content import Content, ContentType, Fingerprint, Match
    from fingerprint_dagster.errors import ContentError, FingerprintError, UsageError
    from fingerprint_dagster.media.plugin import ContentTypePlugin
    from fingerprint_dagster.pipeline import Pipeline
    from fingerprint_dagster.service import FingerprintResult, FingerprintService, SearchResult
    from fingerprint_dagster.settings import Settings, get_settings

__all__ = [
    "Content",
    "ContentError",
    "ContentType",
    "ContentTypePlugin",
    "Fingerprint",
    "FingerprintError",
    "FingerprintResult",
    "FingerprintService",
    "Match",
    "Pipeline",
    "SearchResult",
    "Settings",
    "UsageError",
    "get_settings",
]

_here = Path(__file__).resolve().parent
if not (_here / "assets").is_dir() and (_here.parent / "pyproject.toml").is_file():
    # An uninstalled checkout keeps assets, resources and jobs beside this package; a wheel keeps them inside.
    __path__.append(str(_here.parent))

_MODULE_OF = {
    "Content": "content",
    "ContentError": "errors",
    "ContentType": "content",
    "ContentTypePlugin": "media.plugin",
    "Fingerprint": "content",
    "FingerprintError": "errors",
    "FingerprintResult": "service",
    "FingerprintService": "service",
    "Match": "content",
    "Pipeline": "pipeline",
    "SearchResult": "service",
    "Settings": "settings",
    "UsageError": "errors",
    "get_settings": "settings",
}


def __getattr__(name: str) -> Any:
    """The public names, each loaded when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
