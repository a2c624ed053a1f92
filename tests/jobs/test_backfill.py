"""`fingerprint backfill`: which batches it chooses, and the backfill it leaves to the daemon."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from fingerprint_dagster.assets.batches import RETRY_TAG
from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.cli.group import command
from fingerprint_dagster.content import Failure
from fingerprint_dagster.jobs.instance import open_instance
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import get_settings
from fingerprint_dagster.stages import recipe


@pytest.fixture
def catalog(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """Three batches of one text each: up to date, with a failure, and never run."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    catalog = Catalog(home)
    for name in ("done", "failed", "waiting"):
        (tmp_path / f"{name}.txt").write_text(f"the words of {name}")
        catalog.register([str(tmp_path / f"{name}.txt")], fetcher_of(get_settings()))
    for batch in ("text-000001", "text-000002"):
        catalog.stored(batch, recipe(content_type("text")))
    (content,) = catalog.members("text-000002")
    catalog.record("text-000002", [Failure(content.content_id, content.uri, "decode", "damaged", False)])
    return catalog


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], "3"),
        (["--again"], "123"),
        (["--failed"], "23"),
        (["--again", "--type", "text", "--since", "2020-01-01"], "123"),
        (["--again", "--until", "2020-01-01"], ""),
        (["--again", "--type", "image"], ""),
    ],
)
def test_the_batches_that_match_are_shown(catalog: Catalog, options: list[str], numbers: str) -> None:
    result = CliRunner().invoke(command, ["backfill", "--dry-run", *options])
    assert result.exit_code == 0, result.output
    assert f"{len(numbers)} contents in {len(numbers)} batches" in result.output
    assert {str(number) for number in range(1, 4) if f"text-00000{number}" in result.output} == set(numbers)


def test_a_backfill_is_left_to_the_daemon(catalog: Catalog) -> None:
    result = CliRunner().invoke(command, ["backfill", "--failed", "--queue"])
    assert result.exit_code == 0, result.output
    with open_instance(get_settings()) as instance:
        (backfill,) = instance.get_backfills()
        assert backfill.backfill_id in result.output
        assert backfill.tags == {RETRY_TAG: "true", "dagster/priority": "-1"}  # Behind whatever is new.
        assert set(instance.get_dynamic_partitions("batches")) == {"text-000002", "text-000003"}
        assert {key.path[-1] for key in backfill.asset_selection or []} == {
            "download",
            "decode",
            "embed",
            "hash",
            "store",
        }
