"""The content types there are: every entry of the group `fingerprint_dagster.content_types`, the built-in four too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.media.plugin import ContentTypePlugin

GROUP = "fingerprint_dagster.content_types"
# The same lines stand in pyproject.toml. They are repeated for a checkout that is used without being installed,
# which has no entry points of its own.
BUILT_IN = {
    "image": "fingerprint_dagster.media.image:ImagePlugin",
    "audio": "fingerprint_dagster.media.audio:AudioPlugin",
    "video": "fingerprint_dagster.media.video:VideoPlugin",
    "text": "fingerprint_dagster.media.text:TextPlugin",
}


@lru_cache(maxsize=1)
def content_types() -> Mapping[str, ContentTypePlugin]:
    """Name -> plugin. The built-in types come first, then the others by name.

    Raises `UsageError` for a plugin that cannot be loaded or is not a `ContentTypePlugin`, naming its package.
    """
    found = {name: EntryPoint(name, target, GROUP) for name, target in BUILT_IN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found[entry.name] = entry
    return {name: _load(entry) for name, entry in found.items()}


def content_type(name: str) -> ContentTypePlugin:
    """The plugin of that name. Raises `UsageError` that lists the names there are."""
    try:
        return content_types()[name]
    except KeyError:
        raise UsageError(f"unknown content type {name!r}; there are: {', '.join(content_types())}") from None


def _load(entry: EntryPoint) -> ContentTypePlugin:
    origin = f"content type {entry.name!r} ({entry.value})"
    try:
        plugin = entry.load()()
    except Exception as error:
        raise UsageError(f"{origin} cannot be loaded: {error!r}; update or uninstall its package") from error
    if not isinstance(plugin, ContentTypePlugin) or plugin.name != entry.name:
        raise UsageError(f"{origin} must be a ContentTypePlugin whose name is {entry.name!r}")
    return plugin


def claiming(extension: str) -> list[ContentTypePlugin]:
    """The content types that claim a file-name ending such as `.jpg` (any case)."""
    return [plugin for plugin in content_types().values() if extension.lower() in plugin.extensions]
