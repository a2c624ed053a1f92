"""The assets `matches` and `duplicates`, materialised in memory on real pictures and texts."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from made_texts import edited, words
from media_files import picture
from PIL import Image

from fingerprint_dagster.assets import STAGE_ASSETS
from fingerprint_dagster.assets.batches import BATCHES
from fingerprint_dagster.assets.duplicates import duplicates
from fingerprint_dagster.assets.matches import WATCH_CHECK, matches
from fingerprint_dagster.catalog import Catalog
from fingerprint_dagster.definitions import build_definitions, build_resources
from fingerprint_dagster.duplicates.decisions import Decision, Decisions
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import Settings, get_settings

NOVEL = words(1)


def fingerprint(settings: Settings, instance: dg.DagsterInstance, folder: Path) -> list[str]:
    """Register what is in the folder and take it through the five stages; the names of its batches."""
    batches = [each.name for each in Catalog(settings.home).register([str(folder)], fetcher_of(settings)).batches]
    instance.add_dynamic_partitions(BATCHES.name or "", batches)
    for batch in batches:
        resources = build_resources(settings)
        assert dg.materialize(STAGE_ASSETS, instance=instance, partition_key=batch, resources=resources).success
    return batches


def materialize(
    settings: Settings, instance: dg.DagsterInstance, asset: dg.AssetsDefinition, batch: str | None = None
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*STAGE_ASSETS, matches, duplicates],
        instance=instance,
        selection=[asset],
        partition_key=batch,
        resources=build_resources(settings),
    )


def said(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    (event,) = result.get_asset_materialization_events()
    return {name: each.value for name, each in event.step_materialization_data.materialization.metadata.items()}


def data_version(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_asset_materialization_events()
    return (event.step_materialization_data.materialization.tags or {})["dagster/data_version"]


def check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.check_name == WATCH_CHECK
    return evaluation


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "novel.txt").write_text(" ".join(NOVEL))
    (folder / "other.txt").write_text(" ".join(words(2)))
    return folder


def test_a_batch_is_compared_with_everything_known_before_it(settings, instance, texts, tmp_path):
    (first,) = fingerprint(settings, instance, texts)
    told = said(materialize(settings, instance, matches, first))
    assert (told["contents"], told["compared"], told["pairs"]) == (2, 2, 0)
    more = tmp_path / "more"
    more.mkdir()
    (more / "edited.txt").write_text(" ".join(edited(NOVEL, 1)))
    (more / "excerpt.txt").write_text(" ".join(NOVEL[100:160]))
    (second,) = fingerprint(settings, instance, more)
    result = materialize(settings, instance, matches, second)
    told = said(result)
    assert (told["contents"], told["compared"], told["pairs"], told["copy"]) == (2, 2, 3, 1)
    records, _ = told["top_matches"]  # type: ignore[misc]
    assert {Path(record.data["of"]).name for record in records} <= {"novel.txt", "edited.txt", "excerpt.txt"}
    again = materialize(settings, instance, matches, second)
    assert said(again)["compared"] == 0
    assert data_version(again) == data_version(result) != data_version(materialize(settings, instance, matches, first))


def test_the_check_warns_when_content_matches_watched_content(settings, instance, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("FINGERPRINT_WATCHED", str(texts))
    get_settings.cache_clear()
    (first,) = fingerprint(settings, instance, texts)
    assert check(materialize(settings, instance, matches, first)).passed
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "copy.txt").write_text(" ".join(edited(NOVEL, 1)))
    (second,) = fingerprint(settings, instance, uploads)
    found = check(materialize(settings, instance, matches, second))
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    records, _ = found.metadata["watched_content_matched"].value  # type: ignore[misc]
    assert [Path(record.data["watched"]).name for record in records] == ["novel.txt"]
    # The batch of what is watched warns as well, once it is looked at again.
    assert not check(materialize(settings, instance, matches, first)).passed
    # And the collection, whatever batch ran last.
    (uploads / "copy.txt").rename(tmp_path / "away.txt")
    (uploads / "another.txt").write_text(" ".join(words(3)))
    third = fingerprint(settings, instance, uploads)[-1]
    assert check(materialize(settings, instance, matches, third)).passed
    assert not check(materialize(settings, instance, duplicates)).passed
    store = open_store(settings.store_uri)
    copy, novel = (each for part in store.scan() for each in part if "other" not in each.content.uri)
    Decisions(settings.home).record([Decision.of("different", copy, novel)])
    assert check(materialize(settings, instance, matches, second)).passed
    assert check(materialize(settings, instance, duplicates)).passed


def test_duplicates_are_clusters_and_a_report(settings, instance, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(picture("coffee.png"), folder)
    shutil.copy(picture("coffee.png"), folder / "the same.png")
    Image.open(picture("coffee.png")).resize((300, 200)).save(folder / "small.jpg", quality=60)
    shutil.copy(picture("rocket.jpg"), folder)
    fingerprint(settings, instance, folder)
    told = said(materialize(settings, instance, duplicates))
    assert (told["contents"], told["compared"], told["clusters"], told["copies_to_spare"]) == (4, 4, 1, 2)
    report = Path(str(told["report"]))
    assert report == settings.home / "reports" / "duplicates.html"
    assert "data:image/webp;base64," in report.read_text()
    assert told["report_url"] == report.as_uri()
    (record,), _ = told["largest_clusters"]  # type: ignore[misc]
    assert record.data["copies"] == 3
    assert "coffee.png" in record.data["keep"] or "same.png" in record.data["keep"]
    assert said(materialize(settings, instance, duplicates))["compared"] == 0


def test_matches_are_asked_for_when_a_batch_is_stored_and_not_again(settings, instance, texts):
    definitions = build_definitions(settings)
    start = dg.evaluate_automation_conditions(definitions, instance, asset_selection=dg.AssetSelection.assets(matches))
    (batch,) = fingerprint(settings, instance, texts)

    def requested(cursor: Any) -> tuple[int, Any]:
        result = dg.evaluate_automation_conditions(
            definitions, instance, asset_selection=dg.AssetSelection.assets(matches), cursor=cursor
        )
        return result.total_requested, result.cursor

    count, cursor = requested(start.cursor)
    assert count == 1
    materialize(settings, instance, matches, batch)
    count, cursor = requested(cursor)
    assert count == 0
    fingerprint(settings, instance, texts)  # the same again: the data version stays
    assert requested(cursor)[0] == 0


def test_the_five_stage_job_does_not_wait_for_matches(settings):
    repository = build_definitions(settings).get_repository_def()
    stages = repository.get_job("fingerprint").asset_layer.executable_asset_keys
    assert not {"matches", "duplicates"} & {key.path[-1] for key in stages}
    for job, asset in (("match_batches", "matches"), ("find_duplicates", "duplicates")):
        keys = repository.get_job(job).asset_layer.executable_asset_keys
        assert [key.path[-1] for key in keys] == [asset]
