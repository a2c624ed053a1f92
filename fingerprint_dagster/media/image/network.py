"""What pictures and the frames of videos have in common: the network of the embed stage, which the settings choose."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fingerprint_dagster.media.plugin import ContentTypePlugin

if TYPE_CHECKING:
    from fingerprint_dagster.models.backbones import ImageModel


class NetworkPlugin(ContentTypePlugin):
    """A content type whose embed stage describes pictures by the network of the settings, `_model`."""

    @cached_property
    def _model(self) -> ImageModel:
        from fingerprint_dagster.models.backbones import image_model
        from fingerprint_dagster.settings import get_settings

        return image_model(get_settings())

    @cached_property  # not in the constructor: wrong settings must not keep the other content types from loading
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[override]
        """The network of the embed stage. Raises `UsageError` where the settings name none that there is."""
        return {"embed": {"model": self._model.spec.name, "weights": self._model.spec.digest}}
