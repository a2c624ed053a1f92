"""The pairs and clusters as one HTML file that a person can look through without a network.

The file holds everything: pictures as data URIs, each content's once however many pairs it is in. A content security
policy in it forbids every connection, and allows only the one script and the one style that are in it. What comes from
names and texts is data for that script, which sets it as text only.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fingerprint_dagster.content import Fingerprint, Match, Range
from fingerprint_dagster.duplicates import previews
from fingerprint_dagster.duplicates.decisions import FORMAT
from fingerprint_dagster.duplicates.findings import Finding, Findings, surest
from fingerprint_dagster.duplicates.relation import extent
from fingerprint_dagster.duplicates.rows import size_text
from fingerprint_dagster.export import in_whole
from fingerprint_dagster.sources.uri import readable
from fingerprint_dagster.stages import Entry

if TYPE_CHECKING:
    from fingerprint_dagster.pipeline import Pipeline

MOST_PAIRS = 10_000
"""The pairs in a report, the surest of all; the clusters with the most copies, as many as half of that."""
_MEMBERS = 60  # of a cluster that are shown
_PREVIEWS_IN_A_PART = 256  # taken apart by the browser together, when the first of them is shown
_AT_ONCE = 64  # contents whose decoded values are looked up together
_VERDICTS = {None: 0, "same": 1, "different": 2}

Progress = Callable[[int, int], None]
Cut = tuple[str, Range | None]


@dataclass(frozen=True)
class Written:
    """What is in a report: pairs, and those that are left out because the others are surer."""

    pairs: int
    left_out: int
    clusters: int


def write_report(
    findings: Findings,
    pipeline: Pipeline,
    out: Path,
    *,
    most: int = MOST_PAIRS,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the report to `out`, whole or not at all. Pictures are made from decoded values, decoded anew if need be.

    Raises `UsageError` where it cannot be written.
    """
    counted = 0

    def counting() -> Iterator[Finding]:
        nonlocal counted
        for finding in findings:
            counted += 1
            yield finding

    chosen = heapq.nsmallest(most, counting(), key=lambda finding: surest(finding.pair))
    shown = list(findings.clusters[: most // 2])
    contents: dict[str, Fingerprint] = {}
    for finding in chosen:
        contents |= {each.content.content_id: each for each in (finding.pair.one, finding.pair.other)}
    for cluster in shown:
        contents |= {each.content.content_id: each for each in cluster.members[:_MEMBERS]}
    cuts = _cuts_wanted(chosen)
    pictures, texts = _looked_at(pipeline, list(contents.values()), cuts, progress)
    index = {content_id: number for number, content_id in enumerate(contents)}
    preview_of = {content_id: number for number, content_id in enumerate(pictures)}
    keep = {cluster.keep.content.content_id for cluster in findings.clusters}
    cluster_of = {each.content.content_id: c.number for c in findings.clusters for each in c.members}
    evidences: dict[str, int] = {}
    for finding in chosen:
        for match in finding.pair.matches:
            evidences.setdefault(match.evidence, len(evidences))
    pairs = [_pair(finding, index, evidences, texts) for finding in chosen]
    counts = [f"{len(chosen):,} pairs", f"{len(findings.clusters):,} clusters"]
    if counted > len(chosen):
        counts.append(f"{counted - len(chosen):,} less sure pairs are left out")
    if findings.different:
        counts.append(f"{findings.different:,} were marked as different")
    data = {
        "id": hashlib.sha256(json.dumps([each.pair.ids for each in chosen]).encode()).hexdigest()[:16],
        "format": FORMAT,
        "summary": f"{', '.join(counts)}; made {time.strftime('%Y-%m-%d %H:%M')}",
        "types": sorted({str(each.content.content_type) for each in contents.values()}),
        "evidences": list(evidences),
        "previews_in_a_part": _PREVIEWS_IN_A_PART,
        "contents": [
            _content(each, preview_of.get(content_id, -1), cluster_of.get(content_id, 0), content_id in keep)
            for content_id, each in contents.items()
        ],
        "pairs": pairs,
        "clusters": [
            {
                "number": cluster.number,
                "size": len(cluster.members),
                "spare": _bytes(cluster.spare_bytes),
                "members": [index[each.content.content_id] for each in cluster.members[:_MEMBERS]],
            }
            for cluster in shown
        ],
    }
    with in_whole(out) as temporary:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            _write(file, data, list(pictures.values()))
    return Written(len(chosen), counted - len(chosen), len(findings.clusters))


def _write(file: IO[str], data: Mapping[str, Any], pictures: Sequence[str]) -> None:
    """The template with its style, its script, their digests, and the data in blocks that no browser takes for code."""
    folder = files("fingerprint_dagster.duplicates")
    template, style, script = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    before, after = template.split("@data@")
    file.write(before.replace("@policy@", policy).replace("@style@", style))
    file.write(_block("data", data))
    for number in range(0, len(pictures), _PREVIEWS_IN_A_PART):
        part = pictures[number : number + _PREVIEWS_IN_A_PART]
        file.write(_block(f"previews-{number // _PREVIEWS_IN_A_PART}", part))
    file.write(after.replace("@script@", script))


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _block(name: str, data: Any) -> str:
    """JSON that holds no `<`, so that nothing in it can end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


# ---------------------------------------------------------------- what is shown of contents and pairs


def _content(content: Fingerprint, preview: int, cluster: int, keep: bool) -> list[Any]:
    """In the order of `C` in report.js."""
    name, folder = _name(content.content.uri)
    facts = " · ".join(part for part in (size_text(content), _bytes(content.size), content.media_type) if part)
    return [
        content.content.content_id,
        content.content.uri,
        name,
        folder,
        str(content.content.content_type),
        content.digest,
        facts,
        round(extent(content), 3),
        preview,
        cluster,
        int(keep),
    ]


def _name(uri: str) -> tuple[str, str]:
    """The name of a file and its folder, or the end of another uri and what comes before it."""
    text = readable(uri)
    folder, _, name = text.rstrip("/").rpartition("/")
    return name or text, folder


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _pair(
    finding: Finding, index: Mapping[str, int], evidences: Mapping[str, int], texts: Mapping[Cut, previews.Cut]
) -> list[Any]:
    """In the order of `P` and `M` in report.js."""
    pair = finding.pair
    one, other = pair.one.content, pair.other.content
    passages = dict.fromkeys(_passages(pair.matches))
    shown = previews.plain if pair.relation == "suggestion" else previews.compared
    matches = []
    for match in pair.matches[:20]:
        cut = texts.get((one.content_id, match.query_range)) if _ends(match) in passages else None
        other_cut = texts.get((other.content_id, match.reference_range)) if cut else None
        matches.append(
            [
                evidences[match.evidence],
                round(match.score, 4),
                _ends_or_none(match.query_range, match.reference_range, 2),
                _ends_or_none(match.query_box, match.reference_box, 4),
                shown(cut, other_cut) if cut and other_cut else None,
            ]
        )
    best = pair.best
    confidence = None if best.confidence is None else round(best.confidence, 6)
    ends = index[one.content_id], index[other.content_id]
    return [*ends, pair.relation, round(best.score, 4), confidence, _VERDICTS[finding.verdict], matches]


def _ends(match: Match) -> tuple[Range | None, Range | None]:
    return match.query_range, match.reference_range


def _ends_or_none(one: Sequence[float] | None, other: Sequence[float] | None, digits: int) -> list[Any] | None:
    if one is None and other is None:
        return None
    return [None if ends is None else [round(end, digits) for end in ends] for ends in (one, other)]


def _passages(matches: Sequence[Match]) -> list[tuple[Range | None, Range | None]]:
    """The passages worth showing: the parts, where there are parts within a match of the whole."""
    ends = [_ends(match) for match in matches]
    parts = ends[1:] if len(ends) > 1 else ends
    return parts[: previews.PASSAGES]


def _cuts_wanted(chosen: Sequence[Finding]) -> dict[str, set[Range | None]]:
    """content_id of a text -> the ranges of which something is shown."""
    wanted: defaultdict[str, set[Range | None]] = defaultdict(set)
    for finding in chosen:
        pair = finding.pair
        for one, other in _passages(pair.matches):
            for content, span in ((pair.one.content, one), (pair.other.content, other)):
                if content.content_type == "text":
                    wanted[content.content_id].add(span)
    return wanted


def _looked_at(
    pipeline: Pipeline, contents: Sequence[Fingerprint], cuts: Mapping[str, set[Range | None]], progress: Progress
) -> tuple[dict[str, str], dict[Cut, previews.Cut]]:
    """content_id -> picture, and the passages that are wanted. What cannot be decoded any more has none."""
    by_type: defaultdict[str, list[Fingerprint]] = defaultdict(list)
    for content in contents:
        by_type[str(content.content.content_type)].append(content)
    pictures: dict[str, str] = {}
    texts: dict[Cut, previews.Cut] = {}
    done = 0
    for name, group in by_type.items():
        for start in range(0, len(group), _AT_ONCE):
            part = [
                each for each in group[start : start + _AT_ONCE] if name != "text" or each.content.content_id in cuts
            ]
            entries = [Entry(each.content, "", each.digest, each.size, each.media_type) for each in part]
            for entry in pipeline.run("decode", entries).passed if entries else ():
                content_id = entry.content.content_id
                for decoded in pipeline.decoded([entry]):
                    text = previews.text_of(decoded)
                    for span in cuts.get(content_id, ()) if text is not None else ():
                        assert text is not None
                        texts[content_id, span] = previews.cut(text, span)
                    picture = previews.picture(decoded)
                    if picture:
                        pictures[content_id] = picture
            done += len(group[start : start + _AT_ONCE])
            progress(done, len(contents))
    return pictures, texts
