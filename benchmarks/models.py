"""CPU milliseconds a picture of the copy descriptor, by runtime, precision and batch size, and its agreement with fp32.

    python benchmarks/models.py

Forward passes alone, from the uint8 picture of 224 x 224 to its whitened vector; decoding and resizing are not in it.
CPU time of one thread; the smallest of several repetitions. Agreement: the cosine to torch in fp32, the least and the
median over photographs and textures of scikit-image, and crops of them. "load" is the CPU time, in ms, from nothing to
the first vector, torch being imported and the model exported; the rows of one runtime share its compiled kernels, so
its first row tells. The other runtimes need the extras of their names. Where there is a GPU, its rows are pictures a
second by the clock, from the host's memory and back. Needs the `bench` extra.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.models import ModelRuntime, engines, runtime
from fingerprint_dagster.models.efficientnet_lite import EFFICIENTNET_LITE0_GEM_W512_V1 as SPEC
from fingerprint_dagster.models.efficientnet_lite import model_input

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins", "page", "brick", "grass", "gravel", "clock")
BATCHES = (1, 4, 8, 16)
WAYS = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


def pictures() -> Iterator[NDArray[np.uint8]]:
    """Each picture, and three crops of it."""
    random = np.random.default_rng(0)
    for name in NAMES:
        picture = getattr(data, name)()
        rgb = np.stack([picture] * 3, axis=2) if picture.ndim == 2 else picture[..., :3]
        yield model_input(rgb)
        height, width = (side * 6 // 10 for side in rgb.shape[:2])
        for _ in range(3):
            top, left = random.integers(0, rgb.shape[0] - height), random.integers(0, rgb.shape[1] - width)
            yield model_input(rgb[top : top + height, left : left + width])


def seconds(work: Callable[[], object], clock: Callable[[], float], repetitions: int = 9) -> float:
    """The smallest of several measurements."""
    times = []
    for _ in range(repetitions):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


def on_the_cpu(inputs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Print the table of the CPU; returns torch's vectors in fp32."""
    print(f"{SPEC.name}: CPU ms a picture, by batch size")
    sizes = "".join(f"{size:8}" for size in BATCHES)
    print(f"{'runtime':14}{'':6}{sizes}{'load':>8}{'least cosine':>15}{'median':>9}")
    exact = np.empty(0, np.float32)
    for name, precision in WAYS:
        models = {size: ModelRuntime("cpu", precision, size, threads=1, runtime=name) for size in BATCHES}
        try:
            if name != "torch":
                engines.exported(SPEC, inputs, name)
            load = seconds(partial(models[1].embed, SPEC, inputs[:1]), time.process_time, 1)
        except UsageError as error:
            print(f"{name:14}{precision:6}  {error}")
            continue
        row = ""
        for size, model in models.items():
            taken = seconds(partial(model.embed, SPEC, inputs[:size]), time.process_time)
            row += f"{taken * 1e3 / size:8.2f}"
        vectors = models[8].embed(SPEC, inputs)
        exact = exact if exact.size else vectors
        cosines = (exact * vectors).sum(axis=-1)
        print(f"{name:14}{precision:6}{row}{load * 1e3:8.0f}{cosines.min():15.4f}{np.median(cosines):9.4f}", flush=True)
    return exact


def on_the_gpu(inputs: NDArray[np.uint8], exact: NDArray[np.float32]) -> None:
    """Print the table of the GPU: with CUDA graphs, and without."""
    print(f"\n{torch.cuda.get_device_name()}: pictures a second")
    print(
        f"{'':20}" + "".join(f"{size:10}" for size in runtime.CUDA_BATCH_SIZES) + f"{'least cosine':>15}{'median':>9}"
    )
    eager = runtime.ModelSpec(f"{SPEC.name}_eager", SPEC.build)
    for title, spec, precision in (
        ("fp16, CUDA graphs", SPEC, "fp16"),
        ("fp16", eager, "fp16"),
        ("fp32, CUDA graphs", SPEC, "fp32"),
    ):
        model = ModelRuntime("cuda", precision)
        row = ""
        for size in runtime.CUDA_BATCH_SIZES:
            batch = np.resize(inputs, (size, *inputs.shape[1:]))
            model.embed(spec, batch)
            row += f"{size / seconds(partial(model.embed, spec, batch), time.perf_counter, 30):10.0f}"
        cosines = (exact * model.embed(spec, inputs)).sum(axis=-1)
        print(f"{title:20}{row}{cosines.min():15.4f}{np.median(cosines):9.4f}", flush=True)


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    inputs = np.stack(list(pictures()))
    exact = on_the_cpu(inputs)
    if torch.cuda.is_available():
        on_the_gpu(inputs, exact)


if __name__ == "__main__":
    main()
