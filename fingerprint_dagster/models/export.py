"""A model as a file for other programs and smaller machines: ONNX, INT8, torch.export, AOTInductor.

Every file is compared with the model in torch, in float32, before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import engines
from fingerprint_dagster.models.runtime import ModelSpec

Form = Literal["onnx", "onnx-int8", "torch-export", "aot-inductor"]
FORMS: tuple[Form, ...] = get_args(Form)
# The least cosine, over all pictures, between a vector of the file and torch's.
AGREEMENT: dict[Form, float] = {"onnx": 0.999, "onnx-int8": 0.98, "torch-export": 0.999, "aot-inductor": 0.999}
# INT8 needs to have seen how large the values between the layers become.
MIN_CALIBRATION = 32

Pictures = NDArray[np.uint8]
Run = Callable[[Pictures], NDArray[np.float32]]


@dataclass(frozen=True)
class Agreement:
    """Cosines between the file's vectors and torch's in float32: the lowest and the mean, of `pictures` pictures."""

    lowest: float
    mean: float
    pictures: int


def export_model(spec: ModelSpec, form: Form, path: Path, pictures: Pictures) -> Agreement:
    """Write the model to `path`, an ONNX file (.onnx) or a package of torch's (.pt2), for any number of pictures.

    pictures: uint8 [n, 3, side, side], varied and real. Of every two, INT8 is calibrated on the first and tested on the
    second. "aot-inductor" is machine code for this kind of processor and needs a C++ compiler.

    Raises UsageError where a package is missing, there are too few pictures for INT8, or the file disagrees with torch:
    then nothing is written.
    """
    if form == "onnx-int8" and len(pictures) < 2 * MIN_CALIBRATION:
        raise UsageError(f"INT8 needs at least {2 * MIN_CALIBRATION} varied pictures, not {len(pictures)}")
    # Copies, since compiled code takes its input for unbroken memory.
    seen, unseen = (np.ascontiguousarray(pictures[start::2]) for start in (0, 1))
    if not len(unseen):
        raise UsageError("at least two pictures are needed to compare the file with torch")
    write: dict[Form, Callable[[Path], Run]] = {
        "onnx": lambda part: _write_onnx(spec, seen, part),
        "onnx-int8": lambda part: _write_int8(spec, seen, part),
        "torch-export": lambda part: _write_torch(spec, seen, part, compiled=False),
        "aot-inductor": lambda part: _write_torch(spec, seen, part, compiled=True),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / ("model" + (".onnx" if form.startswith("onnx") else ".pt2"))
        run = write[form](unfinished)
        agreement = _compare(run, engines.load_torch(spec, torch.device("cpu"), "fp32"), unseen)
        if agreement.lowest < AGREEMENT[form]:
            raise UsageError(
                f"refused: the {form} form of {spec.name} agrees with torch only to a cosine of {agreement.lowest:.4f} "
                f"({AGREEMENT[form]} is asked for); calibrate it on more and more varied pictures, or use onnx"
            )
        unfinished.replace(path)
    return agreement


def _compare(run: Run, torch_run: Run, pictures: Pictures) -> Agreement:
    cosines = []
    for start in range(0, len(pictures), 8):
        ours, theirs = (
            vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            for vectors in (run(pictures[start : start + 8]), torch_run(pictures[start : start + 8]))
        )
        cosines.append((ours * theirs).sum(axis=-1).ravel())
    every = np.concatenate(cosines)
    return Agreement(float(every.min()), float(every.mean()), len(pictures))


def _write_onnx(spec: ModelSpec, pictures: Pictures, path: Path) -> Run:
    engines.optional("onnxscript", "onnxruntime")
    engines.export_onnx(spec, pictures, path)
    return _onnx_run(path)


def _write_int8(spec: ModelSpec, pictures: Pictures, path: Path) -> Run:
    """Static quantisation: 8-bit weights, one scale a channel, and 8-bit values between the convolutions.

    Pooling and whitening stay in float32: they raise to the third power and subtract. So does the first third of the
    convolutions, whose few channels differ most in size. EfficientNet-Lite0, lowest and mean cosine of 80 pictures with
    all 49 quantised: .32, .72; without the first 6: .89, .98; without the first 15: .984, .993. The file is half as
    large as in float32.
    """
    quantization = engines.optional("onnxruntime.quantization", "onnxruntime")
    original = path.with_name("float.onnx")
    _write_onnx(spec, pictures, original)
    prepared = path.with_name("prepared.onnx")
    quantization.quant_pre_process(str(original), str(prepared), skip_symbolic_shape=True)

    convolutions = [
        node.name
        for node in engines.optional("onnx", "onnxruntime").load(prepared).graph.node
        if node.op_type == "Conv"
    ]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        """Hands the pictures over a few at a time."""

        def __init__(self) -> None:
            self.batches = iter([pictures[start : start + 4] for start in range(0, len(pictures), 4)])
            self.name = _session(prepared).get_inputs()[0].name

        def get_next(self) -> dict[str, Pictures] | None:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: batch}

    quantization.quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Clip"],
        nodes_to_exclude=convolutions[: len(convolutions) // 3],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    return _onnx_run(path)


def _session(path: Path) -> Any:
    return engines.optional("onnxruntime", "onnxruntime").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )


def _onnx_run(path: Path) -> Run:
    session = _session(path)
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _write_torch(spec: ModelSpec, pictures: Pictures, path: Path, *, compiled: bool) -> Run:
    example = torch.zeros((2, *pictures.shape[1:]), dtype=torch.uint8)
    module = spec.build().eval().requires_grad_(False)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=1024)},))
    if compiled:
        from torch._inductor import aoti_compile_and_package, aoti_load_package

        aoti_compile_and_package(program, package_path=str(path))
        loaded: Callable[..., torch.Tensor] = aoti_load_package(str(path))
    else:
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()

    def run(batch: Pictures) -> NDArray[np.float32]:
        with torch.inference_mode():
            return loaded(torch.from_numpy(batch)).float().numpy()

    return run
