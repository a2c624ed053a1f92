"""`fingerprint model`: the picture model as a file for other programs and smaller machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings
from fingerprint_dagster.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMS = ("onnx", "onnx-int8", "torch-export", "aot-inductor")  # models.export.FORMS, which would import torch


@command.group()
def model() -> None:
    """The model that describes pictures."""


@model.command("export", short_help="Write the model as ONNX, INT8, torch.export or AOTInductor.")
@click.argument("form", type=click.Choice(_FORMS))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--pictures",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of varied pictures: the file is compared with torch on them, and INT8 calibrated.",
)
@click.option(
    "--at-most", default=256, show_default=True, type=click.IntRange(2), help="Pictures of the folder to use."
)
def model_export(form: str, out: Path, pictures: Path, at_most: int) -> None:
    """Write the model to OUT, if it agrees with torch: onnx, onnx-int8, torch-export or aot-inductor."""
    import numpy as np

    from fingerprint_dagster.models.backbones import image_model
    from fingerprint_dagster.models.efficientnet_lite import model_input
    from fingerprint_dagster.models.export import export_model

    chosen = image_model(current_settings())
    inputs = [model_input(picture, chosen.side) for picture in _pictures(pictures, at_most)]
    if not inputs:
        raise UsageError(f"{pictures} holds no picture that can be read")
    agreement = export_model(chosen.spec, form, out, np.stack(inputs))  # type: ignore[arg-type]
    click.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB, {form} of {chosen.spec.name}; cosine to torch in fp32 over "
        f"{agreement.pictures} pictures: lowest {agreement.lowest:.4f}, mean {agreement.mean:.4f}"
    )


def _pictures(folder: Path, at_most: int) -> Iterator[NDArray[np.uint8]]:
    """RGB arrays of the folder's pictures, in order of their paths; what is no readable picture is left out."""
    from fingerprint_dagster.errors import ContentError
    from fingerprint_dagster.media.image.decode import decode, sniff

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            if sniff(file.read(4096)) is None:
                continue
        try:
            yield decode(path).arrays["rgb"]
        except ContentError:
            continue
        at_most -= 1
        if not at_most:
            return
