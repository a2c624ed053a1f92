"""Asset `sources`: all that was ever registered, looked at again."""

import time

import dagster as dg

from fingerprint_dagster.catalog import Registration
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.resources import CatalogResource, FetcherResource
from fingerprint_dagster.sources.uri import readable

_SHOWN = 50


@dg.asset(name="sources", group_name="collection", owners=["team:fingerprint"], kinds={"python", "sqlite"})
def sources(
    context: dg.AssetExecutionContext, catalog: CatalogResource, fetcher: FetcherResource
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster takes no other annotation
    """Looks again at every registered source: what is new, what has changed, what is gone.

    New and changed content becomes new batches, and what is gone is marked. Files and objects tell by themselves
    whether they have changed; batches with content on the web run again, and their servers are asked there, each once.
    The runs are requested by `rescan_runs_sensor`.
    """
    register, opened = catalog.open(), fetcher.open()
    began = time.time()
    listed = register.sources()
    found = Registration()
    unread: list[str] = []
    for source in listed:
        try:
            found += register.register([source], opened)
        except UsageError as error:
            context.log.warning(f"{source} was not looked at: {error}")
            unread.append(source)
    fresh = [batch.name for batch in found.batches if not batch.recipe]
    again = [batch for batch in register.remote_batches() if batch not in fresh]
    register.want([*fresh, *again])
    gone = [change for change in register.changes(began) if change.removed]
    tables = {
        "unread_sources": [{"source": each} for each in unread],
        "unrecognised_contents": [
            {"content": readable(each.uri), "reason": each.reason} for each in found.unrecognised
        ],
        "removed_contents": [{"content": readable(each.uri)} for each in gone],
    }
    return dg.MaterializeResult(
        metadata={
            "sources": len(listed),
            "new": found.new - found.changed,
            "changed": found.changed,
            "removed": found.removed,
            "unchanged": found.unchanged,
            "unread": len(unread),
            "runs_for_new_batches": len(fresh),
            "runs_to_ask_the_web": len(again),
            "seconds": round(time.time() - began, 3),
            **{
                name: dg.MetadataValue.table([dg.TableRecord(row) for row in rows[:_SHOWN]])
                for name, rows in tables.items()
                if rows
            },
        }
    )
