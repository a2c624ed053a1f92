"""`fingerprint run` on a folder of pictures: how fast it is, and what part of the processor time is Dagster's.

    python benchmarks/run.py FOLDER

Prints one row for each way to do the work, all on this machine in this run: the command line's Dagster runs (first,
and again when the memo has everything), the engine alone without Dagster, and the usual loop of PIL and pdqhash over
all cores (which makes one hash, no embedding, and stores nothing). Processor seconds are those of every process
that was started. Needs the `bench` extra.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

PR_SET_CHILD_SUBREAPER = 36
ENGINE = """
import sys
from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.pipeline import Pipeline, fetcher_of
from fingerprint_dagster.settings import get_settings

if __name__ == "__main__":
    settings = get_settings()
    catalog = Catalog(settings.home)
    registration = catalog.register([sys.argv[1]], fetcher_of(settings))
    with Pipeline.from_settings(settings) as pipeline:
        for batch in registration.batches:
            result = pipeline.download(catalog.members(batch.name))
            for stage in ("decode", "embed", "hash"):
                result = pipeline.run(stage, result.entries)
            pipeline.store(open_store(settings.store_uri), result.entries)
"""
PEER = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import numpy, pdqhash
from PIL import Image

def pdq(path):
    with Image.open(path) as image:
        return pdqhash.compute(numpy.asarray(image.convert("RGB")))

if __name__ == "__main__":
    with ProcessPoolExecutor() as processes:
        list(processes.map(pdq, [path for path in Path(sys.argv[1]).rglob("*") if path.is_file()], chunksize=8))
"""


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(wall seconds, processor seconds of the command and of all it started)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.monotonic() - started
    while True:  # Those whose parents are gone are ours to wait for.
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure every way and print the table."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python benchmarks/run.py FOLDER")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = sys.argv[1]
    count = sum(path.is_file() for path in Path(folder).rglob("*"))
    with tempfile.TemporaryDirectory() as temporary:
        scripts = {name: Path(temporary) / f"{name}.py" for name in ("engine", "peer")}
        scripts["engine"].write_text(ENGINE)
        scripts["peer"].write_text(PEER)

        def home(name: str) -> dict[str, str]:
            return os.environ | {"FINGERPRINT_HOME": str(Path(temporary) / name)}

        run = [sys.executable, "-m", "fingerprint_dagster", "run"]
        rows = {
            "engine alone": measured([sys.executable, str(scripts["engine"]), folder], home("engine")),
            "fingerprint run": measured([*run, folder], home("dagster")),
            "fingerprint run --again (all memo hits)": measured([*run, "--again", folder], home("dagster")),
            "fingerprint run (nothing to do)": measured([*run, folder], home("dagster")),
            "peer: PIL + pdqhash, hash only": measured([sys.executable, str(scripts["peer"]), folder], home("peer")),
        }
    table = Table("way", "wall s", "contents/s", "CPU s", "CPU ms/content", box=box.SIMPLE_HEAD)
    for name, (wall, cpu) in rows.items():
        table.add_row(name, f"{wall:.1f}", f"{count / wall:.1f}", f"{cpu:.1f}", f"{cpu / count * 1000:.1f}")
    console = Console(width=100)
    console.print(f"{count} pictures, {os.cpu_count()} cores")
    console.print(table)
    engine, dagster = rows["engine alone"][1], rows["fingerprint run"][1]
    console.print(f"Dagster's share of the CPU time: {max(0.0, dagster - engine) / dagster:.0%}")


if __name__ == "__main__":
    main()
