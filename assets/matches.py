"""Asset `matches`: what the contents of a batch are copies of."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from fingerprint_dagster.assets.batches import BATCHES, ONE_BATCH_A_RUN
from fingerprint_dagster.assets.store import store
from fingerprint_dagster.content import Fingerprint
from fingerprint_dagster.duplicates.decisions import Decisions
from fingerprint_dagster.duplicates.findings import surest, verdict_of
from fingerprint_dagster.duplicates.join import JOIN_VERSION, join
from fingerprint_dagster.duplicates.pairs import Pair, Pairs
from fingerprint_dagster.duplicates.watch import Sighting, WatchList, sightings
from fingerprint_dagster.export import place_text
from fingerprint_dagster.resources import CatalogResource, StoreResource
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.sources.uri import readable

WATCH_CHECK = "no_watched_content"
_SHOWN = 20

# A batch whose fingerprints are new or have changed, once nothing above it is on its way.
_WHEN_STORED = (
    (
        dg.AutomationCondition.missing()
        | dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    ).since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)


@dg.asset(
    name="matches",
    partitions_def=BATCHES,
    backfill_policy=ONE_BATCH_A_RUN,
    code_version=JOIN_VERSION,
    group_name="duplicates",
    owners=["team:fingerprint"],
    kinds={"python", "sqlite"},
    deps=[store],
    automation_condition=_WHEN_STORED,
    check_specs=[
        dg.AssetCheckSpec(
            WATCH_CHECK,
            asset="matches",
            description="Warns where the batch that ran last matches watched content (FINGERPRINT_WATCHED).",
        )
    ],
)
def matches(
    context: dg.AssetExecutionContext, catalog: CatalogResource, fingerprints: StoreResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes no other annotation
    """Compares the contents of the batch with everything that is stored, and keeps the verified pairs.

    What was compared before is not compared again, here or by the asset `duplicates`.
    """
    batch = context.partition_key
    members = [content.content_id for content in catalog.open().members(batch)]
    pairs = Pairs(Path(catalog.home), fingerprints.uri)
    index = fingerprints.open()
    joined = join(index, pairs, among=members)
    decisions = Decisions(Path(catalog.home)).all()
    verdicts = {(each.one, each.other): each for each in decisions}
    found = [pair for pair in pairs.pairs(among=members) if verdict_of(pair, verdicts) != "different"]
    stored = index.keys(list({each.content.content_id for pair in found for each in (pair.one, pair.other)}))
    found = [pair for pair in found if all(_is_stored(each, stored) for each in (pair.one, pair.other))]
    seen = list(sightings(found, WatchList.of(get_settings().watched), decisions))
    metadata: dict[str, Any] = {
        "contents": len(members),
        "compared": joined.compared,
        "verified": joined.verified,
        "pairs": len(found),
        **dict(Counter(pair.relation for pair in found)),
        "watched_content_matched": len(seen),
    }
    if found:
        metadata["top_matches"] = _table(found)
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(_digest(found)), check_results=[watch_check(seen, batch=batch)]
    )


def _is_stored(content: Fingerprint, keys: Mapping[str, str]) -> bool:
    """Whether the content is still stored as it was when it was compared."""
    return keys.get(content.content.content_id) == content.key


def watch_check(seen: Sequence[Sighting], **counts: Any) -> dg.AssetCheckResult:
    """The check that warns where something copies what is watched. counts: what else is to be shown with it."""
    records = [
        dg.TableRecord(
            {
                "content": readable(each.content.uri),
                "watched": readable(each.watched.uri),
                "score": round(each.pair.best.score, 3),
                "evidence": each.pair.best.evidence,
            }
        )
        for each in seen[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        check_name=WATCH_CHECK,
        passed=not seen,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            **counts,
            "matches": len(seen),
            **({"watched_content_matched": dg.MetadataValue.table(records)} if records else {}),
        },
        description=f"{len(seen)} contents match watched content" if seen else None,
    )


def _table(found: list[Pair]) -> dg.MetadataValue[Any]:
    records = []
    for pair in sorted(found, key=surest)[:_SHOWN]:
        one, other, match = pair.one.content, pair.other.content, pair.best
        span, box = match.reference_range, match.reference_box
        records.append(
            dg.TableRecord(
                {
                    "content": readable(one.uri),
                    "is": pair.relation,
                    "of": readable(other.uri),
                    "score": round(match.score, 3),
                    "sure": "" if match.confidence is None else f"{match.confidence:.4f}",
                    "where": place_text(match.query_range, match.query_box, str(one.content_type)),
                    "where in the other": place_text(span, box, str(other.content_type)),
                    "evidence": match.evidence,
                }
            )
        )
    return dg.MetadataValue.table(records)


def _digest(found: Iterable[Pair]) -> str:
    """Equal for equal pairs, in whatever order they were found."""
    lines = sorted(f"{pair.ids} {pair.one.key} {pair.other.key} {pair.best.score:.6f}" for pair in found)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()
