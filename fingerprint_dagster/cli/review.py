"""`fingerprint review`: what people decide about pairs: the same, or different."""

from __future__ import annotations

import json
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fingerprint_dagster.cli.group import command
from fingerprint_dagster.cli.output import current_settings, new_console, new_table, readable

if TYPE_CHECKING:
    from fingerprint_dagster.content import Fingerprint
    from fingerprint_dagster.duplicates.decisions import Verdict
    from fingerprint_dagster.settings import Settings


@command.group()
def review() -> None:
    """Decide about pairs: the same, or different.

    Decisions are kept in the home and respected everywhere: different pairs are no longer reported, and the same stay
    together. A content whose bytes change is undecided again.
    """


@review.command("list", short_help="List the pairs that nobody has decided about.")
@click.option("--decided", is_flag=True, help="What was decided, instead of what is undecided.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="Pairs to list at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each pair.")
def list_(decided: bool, limit: int, as_json: bool) -> None:
    """List the pairs that nobody has decided about, the surest first (found by `fingerprint duplicates`)."""
    from fingerprint_dagster.duplicates.decisions import Decisions
    from fingerprint_dagster.duplicates.findings import surest, verdict_of
    from fingerprint_dagster.duplicates.pairs import Pairs

    settings = current_settings()
    decisions = Decisions(settings.home).all()
    pairs = Pairs(settings.home, settings.store_uri)
    rows: list[dict[str, object]]
    if decided:
        known = pairs.facts([content_id for each in decisions for content_id in (each.one, each.other)])
        rows = [
            {
                "one": each.one,
                "other": each.other,
                "one_uri": known[each.one].content.uri if each.one in known else None,
                "other_uri": known[each.other].content.uri if each.other in known else None,
                "verdict": each.verdict,
                "holds": each.one in known
                and each.other in known
                and each.holds_for(known[each.one].digest, known[each.other].digest),
            }
            for each in decisions[-limit:]
        ]
    else:
        verdicts = {(each.one, each.other): each for each in decisions}
        undecided = (pair for pair in pairs.pairs() if verdict_of(pair, verdicts) is None)
        best = nsmallest(limit, undecided, key=surest)
        rows = [
            {
                "one": pair.one.content.content_id,
                "other": pair.other.content.content_id,
                "one_uri": pair.one.content.uri,
                "other_uri": pair.other.content.uri,
                "relation": pair.relation,
                "score": round(pair.best.score, 6),
                "evidence": pair.best.evidence,
            }
            for pair in best
        ]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    elif not rows:
        click.echo("nothing was decided" if decided else "no pair is undecided (`fingerprint duplicates` finds them)")
    else:
        names = [name for name in rows[0] if name not in ("one", "other")]
        table = new_table(*(name.removesuffix("_uri") for name in names))
        for row in rows:
            table.add_row(*(readable(str(row[n] or "gone")) if n.endswith("_uri") else str(row[n]) for n in names))
        new_console().print(table)


@review.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
def same(one: str, other: str) -> None:
    """Mark A and B (content_ids, paths or uris) as the same."""
    _decide("same", one, other)


@review.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
def different(one: str, other: str) -> None:
    """Mark A and B (content_ids, paths or uris) as no duplicates of each other."""
    _decide("different", one, other)


@review.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
def undecided(one: str, other: str) -> None:
    """Take back what was decided about A and B."""
    from fingerprint_dagster.duplicates.decisions import Decisions

    settings = current_settings()
    ends = (_stored(settings, each).content.content_id for each in (one, other))
    if Decisions(settings.home).forget(*ends):
        click.echo(f"undecided again: {one} and {other}")
    else:
        click.echo(f"nothing was decided about {one} and {other}")


@review.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_(file: Path) -> None:
    """Take over the decisions in FILE, which a report exported."""
    from fingerprint_dagster.duplicates.decisions import Decisions, read_decisions
    from fingerprint_dagster.index.store import open_store

    settings = current_settings()
    decisions, taken_back = read_decisions(file)
    store = open_store(settings.store_uri)
    named = dict.fromkeys(content_id for each in decisions for content_id in (each.one, each.other))
    stored = {each.content.content_id: each.digest for each in store.get(list(named))}
    holding = [each for each in decisions if each.holds_for(stored.get(each.one, ""), stored.get(each.other, ""))]
    kept = Decisions(settings.home)
    kept.record(holding)
    forgotten = sum(kept.forget(*pair) for pair in taken_back)
    same = sum(each.verdict == "same" for each in holding)
    click.echo(f"decisions taken over: {len(holding)} ({same} same, {len(holding) - same} different)")
    if forgotten:
        click.echo(f"{forgotten} undecided again")
    if len(holding) < len(decisions):
        click.echo(f"{len(decisions) - len(holding)} left out: their contents are gone or have changed", err=True)


def _decide(verdict: Verdict, one: str, other: str) -> None:
    from fingerprint_dagster.duplicates.decisions import Decision, Decisions
    from fingerprint_dagster.errors import UsageError

    settings = current_settings()
    first, second = _stored(settings, one), _stored(settings, other)
    if first.content.content_id == second.content.content_id:
        raise UsageError(f"{one} and {other} are one content")
    Decisions(settings.home).record([Decision.of(verdict, first, second)])
    click.echo(f"{verdict}: {readable(first.content.uri)} and {readable(second.content.uri)}")


def _stored(settings: Settings, text: str) -> Fingerprint:
    """The fingerprint of a content_id, or of the path or uri it was registered by.

    Raises `UsageError` where there is none.
    """
    from fingerprint_dagster.catalog import default_content_id
    from fingerprint_dagster.duplicates.pairs import Pairs
    from fingerprint_dagster.errors import UsageError
    from fingerprint_dagster.index.store import open_store
    from fingerprint_dagster.sources import to_uri

    store = open_store(settings.store_uri)
    found = store.get([text])
    if not found:
        try:
            uri = to_uri(text)
        except UsageError:
            uri = ""
        # A content that was given an id of its own is known by its uri once it was compared.
        found = store.get([default_content_id(uri), *Pairs(settings.home, settings.store_uri).at(uri)])
    if not found:
        raise UsageError(f"no fingerprint of {text!r}; `fingerprint export` lists them all")
    return found[0]
