"""The question everything else is for: what is this a copy of, where, and how sure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Protocol

from fingerprint_dagster.calibration import Calibration, shipped
from fingerprint_dagster.content import Fingerprint, Match
from fingerprint_dagster.index.ranking import stretches
from fingerprint_dagster.index.store import Candidate, Store
from fingerprint_dagster.media.plugin import ContentTypePlugin
from fingerprint_dagster.media.registry import content_types

# Candidates for each reference asked for, and the least number: the ranking of candidates is rough.
CANDIDATES_PER_RESULT = 4
CANDIDATES = 100
FEW = 20
"""Candidates that are looked up at first: mostly no more are looked at."""
NEAR, SURPRISING = 0.3, 1.5
"""A candidate stands out with a row so near to the query's (`Candidate.scores`), or with so many times the bits of
surprise that are usual among the query's candidates."""
UNSURE = 0.5
"""The most confidence in what may be alike without being copied: contents that are flat, silent or nearly empty, also
where their bytes are equal, and mere suggestions."""
EXACT = "sha256"
"""Evidence of equal bytes."""


class Decisions(Protocol):
    """What people decided about pairs of contents (`fingerprint_dagster.duplicates.decisions`)."""

    def verdict(self, one: Fingerprint, other: Fingerprint) -> str | None:
        """Whether these two are the "same" or "different"; None where nobody decided. Their order does not matter."""


def find_copies(
    store: Store,
    plugin: ContentTypePlugin,
    query: Fingerprint,
    top: int,
    *,
    include_self: bool = False,
    calibration: Calibration | None = None,
    false_positives: float | None = None,
    decisions: Decisions | None = None,
    patience: int | None = None,
) -> list[Match]:
    """The matches with the `top` references in `store` that the query copies most, best reference first.

    References with the same bytes come first (score 1, evidence "sha256", no ranges), then those of the query's content
    type, and of every type that can be compared with it, that `verify` accepted: by the confidence of their best match
    to two digits, then its score, ties by content_id; mere suggestions (`details["suggestion"]`) last. A reference of
    which several parts match has several matches, best first, one after the other. Of a long query each stretch is
    looked up by itself (`ranking.stretches`).

    plugin: the query's. include_self: also match the query with itself where it is stored.
    calibration, false_positives, decisions: see `verify`.
    patience: how many candidates of one content type may be refused, one after the other, before the rest of them are
    left alone; None leaves it to the content type, which may also leave alone what does not stand out (`outstanding`).
    """
    found: list[list[Match]] = []
    for copy in store.get(store.by_digest(query.digest)[: top + 1]):
        if include_self or not _same(query, copy):
            match = Match(copy.content, 1.0, EXACT, confidence=1.0)
            found.append(judged([match], query, copy, calibration, false_positives, decisions))
    found = [matches for matches in found if matches][:top]
    exact = {match.reference.content_id for matches in found for match in matches}
    similar: list[list[Match]] = []
    limit = max(CANDIDATES, CANDIDATES_PER_RESULT * top)
    parts = stretches(query)
    for content_type, comparing in comparable(plugin).items() if len(found) < top else ():
        most, of_others = (comparing.patience, comparing.looked_at) if patience is None else (patience, None)
        matched: dict[str, bool] = {}
        for asked in parts:
            refused, any_matched = 0, False
            for content_id, stands_out, reference in _candidates(
                store, asked, limit, content_type, most, of_others, matched
            ):
                if not (stands_out or any_matched):
                    break
                if reference is not None:
                    if content_id in exact or (not include_self and _same(query, reference)):
                        continue
                    matches = verify(comparing, query, reference, calibration, false_positives, decisions)
                    similar += [matches] if matches else []
                    matched[content_id] = bool(matches)
                any_matched |= matched[content_id]
                refused = 0 if matched[content_id] else refused + 1
                if refused >= (most if stands_out else of_others or most):
                    break
    similar.sort(key=lambda matches: _rank(matches[0]))
    return [match for matches in (found + similar)[:top] for match in matches]


def comparable(plugin: ContentTypePlugin) -> dict[str, ContentTypePlugin]:
    """The content types that one of this plugin's can be compared with -> the plugin that does it; its own first."""
    others = {
        name: plugin if name in plugin.also_matches else other
        for name, other in content_types().items()
        if name != plugin.name and (name in plugin.also_matches or plugin.name in other.also_matches)
    }
    return {plugin.name: plugin, **others}


def verify(
    plugin: ContentTypePlugin,
    query: Fingerprint,
    reference: Fingerprint,
    calibration: Calibration | None = None,
    false_positives: float | None = None,
    decisions: Decisions | None = None,
) -> list[Match]:
    """What the query has from the reference, best first, each part with its confidence; an empty list where nothing.

    plugin: the one that compares their content types, see `comparable`.
    calibration: what confidence is told by; None means the shipped one.
    false_positives: the share of unrelated pairs that may give as much evidence: what more give, or nobody knows how
        many, is left out. None leaves it to the thresholds of the algorithms, which this can only make stricter.
    decisions: what people decided: pairs that are "different" have no matches; those of pairs that are the "same" have
        a confidence of 1 and {"decision": "same"} in their details.
    A match with a content of low information has {"low_information": True} in its details. It and a suggestion have a
    confidence of `UNSURE` at most.
    """
    return judged(plugin.match(query, reference), query, reference, calibration, false_positives, decisions)


def judged(
    matches: Sequence[Match],
    query: Fingerprint,
    reference: Fingerprint,
    calibration: Calibration | None = None,
    false_positives: float | None = None,
    decisions: Decisions | None = None,
) -> list[Match]:
    """The matches that a content type found between these two, as `verify` returns them."""
    decided = decisions.verdict(query, reference) if decisions is not None and matches else None
    if decided == "different":
        return []
    by = shipped() if calibration is None else calibration
    low = any(side.sketch.info.get("low_information") for side in (query, reference))
    kept = []
    for match in matches:
        rate = 0.0 if match.evidence == EXACT else by.rate(query.content.content_type, match)
        if false_positives is not None and decided is None and (rate is None or rate > false_positives):
            continue
        confidence = match.confidence if rate is None else by.confidence_at(rate)
        details = dict(match.details)
        if low:
            details["low_information"] = True
        if confidence is not None and (low or details.get("suggestion")):
            confidence = min(confidence, UNSURE)
        if decided == "same":
            confidence, details["decision"] = 1.0, "same"
        kept.append(replace(match, confidence=confidence, details=details))
    return kept


def outstanding(query: Fingerprint, answer: Sequence[Candidate], first: int) -> list[Candidate]:
    """The candidates that stand out from the others, of which most are there by chance; and the first ones of all."""
    tokens = {each.algorithm for each in query.sketch.components if each.kind == "tokens"}
    usual = {name: median([e.scores[name] for e in answer if name in e.scores] or [0.0]) for name in tokens}
    return [
        each
        for place, each in enumerate(answer)
        if place < first
        or any(told >= (SURPRISING * usual[name] if name in tokens else NEAR) for name, told in each.scores.items())
    ]


def _candidates(
    store: Store,
    query: Fingerprint,
    limit: int,
    content_type: str,
    patience: int,
    of_others: int | None,
    known: Container[str],
) -> Iterator[tuple[str, bool, Fingerprint | None]]:
    """The query's candidates, at most `limit`: whether each stands out, and what is stored of those that are not known.

    Those that stand out come first. They are read some at a time: most of them will not be needed.
    of_others: see `ContentTypePlugin.looked_at`; None means that all stand out.
    """
    seen: set[str] = set()
    for most in (min(FEW, limit), limit):
        answer = store.candidates(query, most, content_type)
        likely, together = answer, patience + 1  # Mostly the first is the copy, or none is.
        if of_others is not None and len(answer) == most:
            itself = any(each.content_id == query.content.content_id for each in answer)
            likely = outstanding(query, answer, of_others + itself)
            together = min(together, len(likely) + of_others)
        stand_out = {each.content_id for each in likely}
        new = [each for each in dict.fromkeys(each.content_id for each in [*likely, *answer]) if each not in seen]
        for start in range(0, len(new), together):
            some = new[start : start + together]
            read = {each.content.content_id: each for each in store.get([each for each in some if each not in known])}
            yield from ((each, each in stand_out, read.get(each)) for each in some if each in known or each in read)
        if len(answer) < most:
            return
        seen.update(new)


def _rank(match: Match) -> tuple[bool, float, float, str]:
    """What matches are sorted by: copies before suggestions, surer before less sure, better before worse."""
    sure = 1.0 if match.confidence is None else round(match.confidence, 2)
    return bool(match.details.get("suggestion")), -sure, -match.score, match.reference.content_id


def _same(query: Fingerprint, stored: Fingerprint) -> bool:
    """Whether `stored` is the query itself: from the same address, whatever its id, or its id and its bytes."""
    one, other = query.content, stored.content
    return one.uri == other.uri or (one.content_id == other.content_id and query.digest == stored.digest)
