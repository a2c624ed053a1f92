r"""How often contents that have nothing to do with each other are called copies, with the thresholds as they are.

    python benchmarks/false_positives.py FOLDER... MANIFEST [--pairs N] [--only TYPE,TYPE] [--write FILE]

FOLDER... hold real media; MANIFEST (tab-separated, with the columns path, sha256, kind, package, group, primary) says
what they are. Pairs of contents of one group of near-copies, or of one maker (packages of one family), are left out:
the rest are taken for unrelated, and every pair that matches for a false positive. The matching pairs are printed, so
that whoever doubts it can look at them. Intervals are of 95 %, exact for counted rates (Clopper-Pearson); rates too
small to be counted are extrapolated ("about"), see `fingerprint_dagster.calibration`.

Fingerprints are made as `fingerprint run` makes them and kept in the memo of FINGERPRINT_HOME: a second run is quick.
--write keeps the noise as a calibration, without the media, in place of what FILE has of the same evidence. The one
that comes with the package is made so:

    python benchmarks/false_positives.py FOLDER... MANIFEST --only image,text,audio,image+video \
        --write fingerprint_dagster/calibration/shipped.json

image+video are pairs of one of each. Videos with each other are too few here: see benchmarks/video_match.py.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from fingerprint_dagster import Content, Pipeline, get_settings
from fingerprint_dagster.calibration import Calibration, Estimate, clopper_pearson
from fingerprint_dagster.calibration.measure import Measured, measure
from fingerprint_dagster.content import Failure, Fingerprint

CONTENTS = {"image": 1500, "text": 1500, "audio": 500, "video": 60}
PAIRS = {"image": 120_000, "text": 200_000, "audio": 3_500, "video": 2_000, "image+video": 50_000}
# Packages of one maker, or that show the same (calibration patterns, the same programs), beyond those whose names begin
# alike.
FAMILIES = (
    {"opencv", "libvisp", "pose2sim", "sports2d"},
    {"argon", "material", "soft"},
    {"debian", "debmake", "developers", "aptitude"},
    {"manpages", "freebsd", "linux", "perl"},
)
RATES = (1e-4, 1e-6)
SOURCE = "unrelated contents of the development corpus"


def maker(package: str) -> str:
    """The family of a package: by the first word of its name."""
    word = re.sub(r"^@[^+/]*[+/]", "", package).split("-")[0]
    return next((min(family) for family in FAMILIES if word in family), word)


def contents(folder: Path, manifest: Path, kind: str, most: int) -> Iterator[Content]:
    """The files of a kind that are there, one of each group of near-copies, in a fixed shuffled order."""
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["kind"] == kind and row["primary"] == "1"]
    rows.sort(key=lambda row: row["sha256"])
    for row in rows:
        path = next((p for p in (folder / row["path"], folder / row["path"].split("/", 1)[1]) if p.exists()), None)
        if path is not None and most > 0:
            most -= 1
            facts = {"group": row["group"], "maker": maker(row["package"])}
            yield Content(row["path"], path.absolute().as_uri(), kind, facts)


def related(query: Fingerprint, reference: Fingerprint) -> bool:
    """Whether two contents may well be copies, or show the same."""
    one, other = query.content.metadata, reference.content.metadata
    return bool(one["maker"] == other["maker"] or (one["group"] and one["group"] == other["group"]))


def same_type_or_related(query: Fingerprint, reference: Fingerprint) -> bool:
    """Whether it is no pair of two content types, or related."""
    return query.content.content_type == reference.content.content_type or related(query, reference)


def fingerprints(pipeline: Pipeline, wanted: list[Content]) -> list[Fingerprint]:
    """Those that can be made."""
    found: list[Fingerprint] = []
    for start in range(0, len(wanted), 100):
        made = pipeline.fingerprints(wanted[start : start + 100])
        found += [each for each in made if not isinstance(each, Failure)]
        print(f"\r{len(found)} of {len(wanted)} fingerprints", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def told(estimate: Estimate | None, form: str) -> str:
    """A number with its interval."""
    if estimate is None:
        return "none can be told"
    about = "about " if estimate.extrapolated else ""
    return f"{about}{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def show(kind: str, measured: Measured) -> None:
    """Print the tables of one content type."""
    noise = measured.calibration.noise
    if not noise:
        return
    pairs, false = noise[0].pairs, len(measured.matched)
    low, high = clopper_pearson(false, pairs)
    print(f"\n{kind}: {noise[0].contents} contents, {pairs} unrelated pairs, {false} matched: ", end="")
    print(f"false-positive rate {false / pairs:.2g} ({low:.2g} to {high:.2g})")
    print(f"  {'evidence':34}{'matched':>8}  {'threshold for 1e-4':34}{'threshold for 1e-6':34}")
    for each in noise:
        thresholds = "".join(f"{told(each.threshold(rate), '.4g'):34}" for rate in RATES)
        print(f"  {each.evidence:34}{each.matched:8}  {thresholds}")
    for one in sorted(measured.matched, key=lambda one: -one.match.score)[:20]:
        names = f"{one.query.content.content_id} | {one.match.reference.content_id}"
        print(f"    {one.match.evidence} {one.match.score:.3f} strength {one.match.strength or 0:.1f}: {names}")


def main() -> None:
    """Make the fingerprints, compare the pairs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--pairs", type=int, help="of each content type")
    parser.add_argument("--only", default=",".join(CONTENTS), help="content types")
    parser.add_argument("--write", type=Path, help="keep the noise in this file")
    arguments = parser.parse_args()
    made = Calibration((), SOURCE)
    with Pipeline.from_settings(get_settings()) as pipeline:
        for kind in arguments.only.split(","):
            found = []
            for each in kind.split("+"):
                most = CONTENTS[each]
                wanted = [c for folder in arguments.folder for c in contents(folder, arguments.manifest, each, most)]
                found += fingerprints(pipeline, wanted[:most])
            left_out = same_type_or_related if "+" in kind else related
            pairs = arguments.pairs or PAIRS[kind]
            measured = measure(found, source=SOURCE, pairs=pairs, leave_out=left_out, unrelated=True)
            show(kind, measured)
            made = made.updated(measured.calibration)
    if arguments.write:
        if arguments.write.exists():
            made = Calibration.from_json(arguments.write.read_text()).updated(made)
        arguments.write.write_text(made.to_json())


if __name__ == "__main__":
    main()
