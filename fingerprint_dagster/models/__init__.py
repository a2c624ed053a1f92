"""Models: weights, devices and precision. Everything that touches torch for inference passes here."""

from fingerprint_dagster.models.runtime import ModelRuntime, ModelSpec

__all__ = ["ModelRuntime", "ModelSpec"]
