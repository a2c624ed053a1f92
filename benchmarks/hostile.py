"""What hostile inputs come to: `python benchmarks/hostile.py [--mutations 1000000] [--quick] [--timeout 60]`.

Every class of `tests/hostile/hostile_inputs.py` goes through the real pipeline, in confined worker processes, from the
file to the fingerprint. Counted are: what was read, and what was refused with a reason; what overran the time or the
memory limit, crashed its process, or raised what a decoder may not raise, each of which costs that one content;
requests to a server on loopback that the inputs lead to; and what was written outside the home and its temporary
folder. Inputs that lead elsewhere go once more straight into the decoders, past the check of what they are, confined
and not. The memory (MiB) is the most that a process was seen to have, looked at every 20 ms.
With --mutations, the fuzzer of `tests/hostile/fuzz.py` runs after that.
"""

from __future__ import annotations

import argparse
import multiprocessing.util
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "hostile"))

import fuzz
from attempts import OUTCOMES, Attempt, Canary, Writes, straight_into_decoders, through_pipeline
from hostile_inputs import OUTSIDE, Hostile, archives, every

from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.sandbox import protections
from fingerprint_dagster.settings import Settings
from fingerprint_dagster.sources import expand

REFERRING = ("playlists that point inwards", "references inside media")
_LONGEST_NAME = 64


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=0, help="inputs of the fuzzer")
    parser.add_argument("--first", type=int, default=0, help="number of its first input")
    parser.add_argument("--quick", action="store_true", help="the smaller inputs only")
    parser.add_argument("--only", default="", help="the beginning of a class")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one content")
    parser.add_argument("--memory", type=int, default=8, help="GiB for one decoding process")
    options = parser.parse_args()

    # The libraries' complaints about what they read go nowhere; Python's own messages stay.
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    multiprocessing.util.get_temp_dir()  # that of multiprocessing must outlive ours
    canary = Canary()
    rows: list[Attempt] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        root = Path(name).resolve()
        # What a program might write to without being asked lies beside the home, and is looked at afterwards.
        for folder in ("home", "temporary", "inputs", "current", "user"):
            (root / folder).mkdir()
        os.environ["HOME"], os.environ["TMPDIR"] = str(root / "user"), str(root / "temporary")
        tempfile.tempdir = str(root / "temporary")
        os.chdir(root / "current")
        settings = Settings(
            home=root / "home",
            timeout_seconds=options.timeout,
            decode_memory_bytes=options.memory << 30,
            workers=2,
        )
        print("protections that hold here:", ", ".join(sorted(protections())))
        head = "".join(f"{outcome:>9}" for outcome in ("tried", *OUTCOMES))
        print(f"{'class':<{_LONGEST_NAME}}{head}{'asked':>7}{'outside':>8}{'MiB':>7}{'s':>7}", flush=True)
        kinds: dict[str, list[Hostile]] = defaultdict(list)
        for hostile in every(canary.address, large=not options.quick):
            if hostile.kind.startswith(options.only):
                kinds[hostile.kind].append(hostile)
        with Writes([root / "home", root / "temporary", root / "inputs"]) as writes:

            def show(attempt: Attempt) -> None:
                rows.append(attempt)
                counts = "".join(
                    f"{count:>9}" for count in (attempt.tried, *map(attempt.outcomes.get, OUTCOMES, [0] * 6))
                )
                peak = attempt.peak_bytes >> 20
                seen = f"{len(canary.requests):>7}{len(writes.outside):>8}"
                print(
                    f"{attempt.kind:<{_LONGEST_NAME}}{counts}{seen}{peak:>7}{attempt.seconds:>7.0f}",
                    flush=True,
                )

            for number, kind in enumerate(list(kinds)):
                inputs = kinds.pop(kind)
                show(through_pipeline(kind, inputs, root / "inputs" / str(number), settings))
                if kind in REFERRING:
                    for sandbox, how in ((True, "confined"), (False, "not confined")):
                        label = f"{kind}, decoders alone, {how}"
                        place = root / "inputs" / f"{number}{sandbox}"
                        show(straight_into_decoders(label, inputs, place, sandbox=sandbox))
            if "archives".startswith(options.only):
                show(_members(root / "inputs" / "archives", settings))
        strange = [path for folder in ("current", "user") for path in (root / folder).rglob("*")]
        if Path(OUTSIDE).exists():
            strange.append(Path(OUTSIDE))
        print(f"requests: {len(canary.requests)}; written elsewhere by this process: {len(writes.outside)}")
        print(f"found beside the home afterwards: {strange or 'nothing'}")
        for line in (*canary.requests[:10], *writes.outside[:10]):
            print("  ", line)
        for attempt in rows:
            for line in attempt.bad:
                print(f"   {attempt.kind}: {line}")
            if "decoders alone" not in attempt.kind:
                for line in attempt.unrefused:
                    print(f"   {attempt.kind}: was read: {line}")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"peak of this process, which downloads, embeds and hashes: {own} MiB")
        canary.close()
        failed = bool(canary.requests or writes.outside or strange or any(row.outcomes["escape"] for row in rows))
        if options.mutations:
            began = time.monotonic()
            tally = fuzz.run(options.first, options.mutations, root / "temporary" / "escapes", each=_progress)
            print(fuzz.table(tally))
            print(f"{tally.inputs} mutated inputs in {time.monotonic() - began:.0f} s: {len(tally.escapes)} escapes")
            for escape in tally.escapes:
                print(escape.number, escape.target, escape.seed, escape.what)
            failed = failed or bool(tally.escapes)
    sys.exit(failed)


def _progress(tally: fuzz.Tally) -> None:
    if tally.inputs % 100_000 == 0:
        print(f"{tally.inputs} mutated inputs, {len(tally.escapes)} escapes", flush=True)


def _members(folder: Path, settings: Settings) -> Attempt:
    """Archives: their members listed, and the first 50 of each through the pipeline."""
    from fingerprint_dagster.content import Content, Failure
    from fingerprint_dagster.pipeline import Pipeline

    folder.mkdir()
    attempt = Attempt("archives and their members")
    began = time.monotonic()
    fetcher = fetcher_of(settings)
    with Pipeline.from_settings(settings) as pipeline:
        for name, data in archives().items():
            path = folder / name
            path.write_bytes(data)
            listed = []
            for row in expand(str(path), fetcher):
                listed.append(row)
                if len(listed) == 50:
                    break
            contents = [Content(str(number), row.uri, "text") for number, row in enumerate(listed)]
            for content, result in zip(contents, pipeline.fingerprints(contents), strict=True):
                reason = result.reason if isinstance(result, Failure) else None
                attempt.add(Hostile("archives", "text", f"{name}: {content.uri[-60:]}", b"", refused=False), reason)
    attempt.seconds = time.monotonic() - began
    return attempt


if __name__ == "__main__":
    main()
