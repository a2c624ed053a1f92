"""`fingerprint run` on a folder: how fast it is, and where the processor seconds go.

    python benchmarks/run.py FOLDER [--no-peer]

Runs the folder into a fresh home, then again with everything in the memo, then with nothing to do, and prints for each
the processor seconds of every part: each stage's own work, the store, the memo (coding, reading and writing values),
the pipes between processes, Dagster, and process starts; what is no stage's work as a share of the stages'; how busy
the cores were; contents a second. Beside them, in the same run: the engine without Dagster, for new content and with
everything in the memo, and the usual loop of PIL and pdqhash over all cores (pictures only: one hash, no embedding,
nothing stored). Needs the `bench` extra.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from parts import OVERHEAD, STAGES, Parts, measured, sampled
from rich import box
from rich.console import Console
from rich.table import Table

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


def main() -> None:
    """Measure every way and print the tables."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
    if len(sys.argv) not in (2, 3) or not folder.is_dir():
        sys.exit("usage: python benchmarks/run.py FOLDER [--no-peer]")
    count = sum(path.is_file() for path in folder.rglob("*"))
    with tempfile.TemporaryDirectory() as temporary:
        scripts = {name: Path(temporary) / f"{name}.py" for name in ("engine", "peer")}
        scripts["engine"].write_text(ENGINE)
        scripts["peer"].write_text(PEER)

        def home(name: str) -> dict[str, str]:
            return os.environ | {"FINGERPRINT_HOME": str(Path(temporary) / name)}

        run = [sys.executable, "-m", "fingerprint_dagster", "run"]
        engine = [sys.executable, str(scripts["engine"]), str(folder)]
        ways = {
            "run": sampled([*run, str(folder)], home("dagster")),
            "run --again": sampled([*run, "--again", str(folder)], home("dagster")),
            "nothing to do": sampled([*run, str(folder)], home("dagster")),
            "engine alone": sampled(engine, home("engine")),
            "engine again": sampled(engine, home("engine")),
        }
        if "--no-peer" not in sys.argv:
            wall, processor, busy = measured([sys.executable, str(scripts["peer"]), str(folder)], home("peer"))
            ways["PIL + pdqhash"] = Parts(wall, processor, {}, busy)
    console = Console(width=110)
    console.print(f"{count} contents, {len(os.sched_getaffinity(0))} cores; processor seconds")
    console.print(_table(ways, count))


def _table(ways: dict[str, Parts], count: int) -> Table:
    table = Table("", box=box.SIMPLE_HEAD)
    for name in ways:
        table.add_column(name, justify="right")
    for part in (*STAGES, *OVERHEAD):
        table.add_row(part, *(f"{each.parts.get(part, 0.0):.1f}" if each.parts else "" for each in ways.values()))
    table.add_section()
    table.add_row("processor seconds", *(f"{parts.processor:.1f}" for parts in ways.values()))
    table.add_row("seconds", *(f"{parts.wall:.1f}" for parts in ways.values()))
    shares = [parts.overhead for parts in ways.values()]
    table.add_row("not the stages' own, of theirs", *(f"{share:.0%}" if share < 10 else "" for share in shares))
    table.add_row("cores busy", *(f"{parts.busy:.0%}" for parts in ways.values()))
    table.add_row("contents a second", *(f"{count / parts.wall:,.0f}" for parts in ways.values()))
    return table


if __name__ == "__main__":
    main()
