"""`python tests/recovery --times 200`: the long form of the recovery tests; prints the counts."""

# ruff: noqa: T201 - it is a command.
import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from campaign import CHECKOUT, Campaign, kinds
from disks import can_start_anew, live_apart, missing


def main() -> int:
    """Hurt runs until it has happened so many times; 0 where nothing was lost, double, wrong, stuck, or done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="kills, power cuts and full disks (default: 200)")
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so many minutes in any case")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", nargs="*", help="only these by turns, until each has happened")
    parser.add_argument("--in-a-row", type=int, default=6, help="how often before a look at what came of it, at most")
    parser.add_argument("--folder", type=Path, help="where homes and logs lie (default: a temporary folder)")
    parser.add_argument("--site", type=Path, help="where the content type `waveform` is installed already")
    parser.add_argument("--json", type=Path, help="write the counts there, too")
    options = parser.parse_args()
    lacking = missing()
    if not lacking:
        live_apart()
    with tempfile.TemporaryDirectory(prefix="recovery-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not lacking:
            can_start_anew(folder)
        site = options.site or installed(Path(temporary))
        if lacking:
            print(f"no power cuts and no full disks: {lacking}", flush=True)
        memory = Path("/dev/shm")
        deadline = time.monotonic() + 60 * options.minutes
        with Campaign(
            folder,
            site,
            options.seed,
            disks=not lacking,
            images=memory if memory.is_dir() else None,
            in_a_row=options.in_a_row,
        ) as campaign:
            counts = campaign.counts
            print(f"seed {options.seed}", flush=True)
            chosen = itertools.cycle(options.kinds) if options.kinds else kinds(options.seed, disks=not lacking)
            for kind in chosen:
                met = all(counts.done[each] for each in options.kinds or ())
                if (counts.done.total() >= options.times and met) or time.monotonic() > deadline:
                    break
                told = len(counts.told)
                campaign.round(kind)
                print(f"{kind}: {counts.done.total()} times, {counts.faulty} faults", flush=True)
                for each in counts.told[told:]:
                    print(f"  {each}", flush=True)
            campaign.finish()
            print(counts.table())
            if options.json:
                options.json.write_text(json.dumps({"done": counts.done, "faults": counts.faults, "told": counts.told}))
    return int(counts.faulty > 0)


def installed(folder: Path) -> Path:
    """The content type `waveform`, installed by pip."""
    source = CHECKOUT / "tests" / "packages" / "waveform_plugin"
    copied = folder / "waveform"
    subprocess.run(["cp", "-r", source, copied], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [*pip, "--disable-pip-version-check", "--target", folder / "site", copied]
    subprocess.run(command, check=True)
    return folder / "site"


if __name__ == "__main__":
    sys.exit(main())
