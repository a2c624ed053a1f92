"""Asset `duplicates`: the whole collection joined with itself, and a report for people."""

from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg

from fingerprint_dagster.assets.matches import WATCH_CHECK, matches, watch_check
from fingerprint_dagster.duplicates.decisions import Decisions
from fingerprint_dagster.duplicates.findings import Cluster, find, order_of_registration
from fingerprint_dagster.duplicates.join import JOIN_VERSION, join
from fingerprint_dagster.duplicates.keep import best_first, keep_of
from fingerprint_dagster.duplicates.pairs import Pairs
from fingerprint_dagster.duplicates.report import write_report
from fingerprint_dagster.duplicates.watch import WatchList, sightings
from fingerprint_dagster.resources import CatalogResource, PipelineResource, StoreResource
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.sources.uri import readable

_SHOWN = 20


class DuplicatesConfig(dg.Config):
    """How the clusters are made.

    keep: which copy of each cluster is the best: largest, smallest, earliest, latest or first (registered).
    report: where the report is written; empty means `reports/duplicates.html` in the home.
    """

    keep: str = "largest"
    report: str = ""


@dg.asset(
    name="duplicates",
    code_version=JOIN_VERSION,
    group_name="duplicates",
    owners=["team:fingerprint"],
    kinds={"python", "sqlite"},
    deps=[matches],
    # Each night, some time after the re-scan of the registered sources.
    automation_condition=dg.AutomationCondition.cron_tick_passed("0 5 * * *") & ~dg.AutomationCondition.in_progress(),
    check_specs=[
        dg.AssetCheckSpec(
            WATCH_CHECK,
            asset="duplicates",
            description="Warns where anything in the collection matches watched content (FINGERPRINT_WATCHED).",
        )
    ],
)
def duplicates(
    config: DuplicatesConfig, catalog: CatalogResource, fingerprints: StoreResource, pipeline: PipelineResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes no other annotation
    """Compares everything that was not compared yet, makes clusters of copies, and writes an HTML report."""
    home = Path(catalog.home)
    store, pairs = fingerprints.open(), Pairs(home, fingerprints.uri)
    joined = join(store, pairs, workers=pipeline.workers)
    rank = best_first(keep_of(config.keep), registered=order_of_registration(catalog.open()))
    decisions = Decisions(home).all()
    findings = find(store, pairs, decisions, rank)
    report = Path(config.report) if config.report else home / "reports" / "duplicates.html"
    with pipeline.open() as engine:
        written = write_report(findings, engine, report)
    relations = Counter(finding.pair.relation for finding in findings)
    metadata: dict[str, Any] = {
        "report": dg.MetadataValue.path(report),
        "report_url": dg.MetadataValue.url(report.absolute().as_uri()),
        "contents": sum(pairs.count().values()),
        "compared": joined.compared,
        "verified": joined.verified,
        "pairs": sum(relations.values()),
        **{str(relation): count for relation, count in relations.items()},
        "pairs_marked_different": findings.different,
        "pairs_not_in_report": written.left_out,
        "clusters": len(findings.clusters),
        "copies_to_spare": sum(len(cluster.members) - 1 for cluster in findings.clusters),
        "bytes_to_spare": sum(cluster.spare_bytes for cluster in findings.clusters),
    }
    if findings.clusters:
        metadata["largest_clusters"] = dg.MetadataValue.table([_record(each) for each in findings.clusters[:_SHOWN]])
    watch_list = WatchList.of(get_settings().watched)
    seen = list(sightings(pairs.pairs(), watch_list, decisions)) if watch_list else []
    return dg.MaterializeResult(metadata=metadata, check_results=[watch_check(seen)])


def _record(cluster: Cluster) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "cluster": cluster.number,
            "copies": len(cluster.members),
            "type": str(cluster.keep.content.content_type),
            "keep": readable(cluster.keep.content.uri),
            "bytes to spare": cluster.spare_bytes,
        }
    )
