"""The five assets, materialised in memory on real media."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
from media_files import picture, sample

from fingerprint_dagster.assets import STAGE_ASSETS
from fingerprint_dagster.assets.batches import BATCHES, RETRY_TAG
from fingerprint_dagster.catalog import Batch, Catalog
from fingerprint_dagster.definitions import build_resources
from fingerprint_dagster.index.store import open_store
from fingerprint_dagster.media.registry import content_type
from fingerprint_dagster.pipeline import fetcher_of
from fingerprint_dagster.settings import Settings
from fingerprint_dagster.stages import STAGES, asset_version, code_version, recipe


def register(settings: Settings, *sources: Path) -> list[str]:
    registration = Catalog(settings.home).register([str(source) for source in sources], fetcher_of(settings))
    return [batch.name for batch in registration.batches]


def materialize(
    settings: Settings, instance: dg.DagsterInstance, batch: str, *stages: str, tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(BATCHES.name or "", [batch])
    return dg.materialize(
        STAGE_ASSETS,
        instance=instance,
        partition_key=batch,
        resources=build_resources(settings),
        selection=list(stages) or None,
        tags=tags,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, object]]:
    """stage -> what its materialisation says."""
    return {
        event.asset_key.path[-1]: {
            name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("coffee.png", "chelsea.png"):
        shutil.copy(picture(name), folder)
    return folder


def test_a_batch_goes_through_all_stages_into_the_store(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    result = materialize(settings, instance, batch)
    assert result.success
    assert list(metadata(result)) == list(STAGES)
    assert all(said["contents"] == 2 and said["cache_misses"] == 2 for said in metadata(result).values())
    assert open_store(settings.store_uri).count() == {"image": 2}


def test_materialising_again_computes_nothing_and_keeps_the_data_versions(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    first = materialize(settings, instance, batch)
    second = materialize(settings, instance, batch)
    assert all((said["cache_misses"], said["cache_hits"]) == (0, 2) for said in metadata(second).values())
    assert data_versions(first) == data_versions(second)


def test_a_changed_file_changes_the_data_version_of_every_stage(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    first = materialize(settings, instance, batch)
    shutil.copy(picture("rocket.jpg"), pictures / "coffee.png")
    second = materialize(settings, instance, batch)
    before, after = data_versions(first), data_versions(second)
    assert all(before[stage] != after[stage] for stage in STAGES)


def data_versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    tags = {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.tags or {}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    return {stage: each["dagster/data_version"] for stage, each in tags.items()}


def test_the_code_version_of_an_asset_is_its_stage_version():
    versions = {asset.key.path[-1]: asset.code_versions_by_key[asset.key] for asset in STAGE_ASSETS}
    assert versions == {stage: asset_version(stage) for stage in STAGES}
    assert all(versions[stage].startswith(code_version(stage)) for stage in STAGES)
    assert "efficientnet_lite0_gem_w512_v1" in versions["embed"]


def test_one_stage_alone_takes_up_what_the_stages_before_it_left(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    for stage in STAGES:
        assert materialize(settings, instance, batch, stage).success
    assert open_store(settings.store_uri).count() == {"image": 2}


def test_results_that_are_gone_are_named_with_the_cure(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    assert materialize(settings, instance, batch, "download").success
    shutil.rmtree(settings.home / "results")
    with pytest.raises(dg.Failure, match="materialize download for this batch again"):
        materialize(settings, instance, batch, "decode")


def test_machines_with_a_home_each_share_what_they_compute_and_store(settings, pictures, tmp_path, s3_bucket):
    shared = {"memo": f"s3://{s3_bucket.name}/memo", "store": str(tmp_path / "store")}
    one, other = (settings.model_copy(update={"home": tmp_path / name, **shared}) for name in ("one", "other"))
    (pictures / "cut.png").write_bytes(picture("coffee.png").read_bytes()[:5000])
    for machine, made in ((one, {"decode": 3, "hash": 2, "store": 2}), (other, {"decode": 0, "hash": 0, "store": 0})):
        (batch,) = register(machine, pictures)
        said = metadata(materialize(machine, dg.DagsterInstance.ephemeral(), batch))
        assert {stage: said[stage]["cache_misses"] for stage in made} == made
        assert Catalog(machine.home).in_quarantine() == [(Batch(batch, "image", 3, recipe(content_type("image"))), 1)]
    assert open_store(other.store_uri).count() == {"image": 2}


def test_bad_contents_go_to_quarantine_and_the_others_are_stored(settings, instance, pictures):
    (pictures / "empty.jpg").write_bytes(b"")
    (pictures / "cut.png").write_bytes(picture("coffee.png").read_bytes()[:5000])
    shutil.copy(sample("audio/demo.mp3"), pictures / "song.jpg")
    (batch,) = register(settings, pictures)
    result = materialize(settings, instance, batch)
    assert result.success
    assert open_store(settings.store_uri).count() == {"image": 2}
    reasons = {Path(each.uri).name: (each.stage, each.reason) for _, each in Catalog(settings.home).quarantined()}
    assert reasons["empty.jpg"] == ("download", "the file is empty")
    assert reasons["cut.png"][0] == "decode"
    assert "bytes are audio/mpeg" in reasons["song.jpg"][1]
    said = metadata(result)["store"]
    assert said["quarantined"] == 3
    found = checks(result)
    assert found["all_stored_or_quarantined"].passed
    assert not found["nothing_in_quarantine"].passed
    assert found["nothing_in_quarantine"].severity == dg.AssetCheckSeverity.WARN
    assert found["nothing_in_quarantine"].metadata["batch_quarantined"].value == 3


def test_a_file_that_was_mended_leaves_the_quarantine(settings, instance, pictures):
    broken = pictures / "broken.png"
    broken.write_bytes(b"")
    (batch,) = register(settings, pictures)
    materialize(settings, instance, batch)
    assert len(Catalog(settings.home).quarantined()) == 1
    shutil.copy(picture("rocket.jpg"), broken)
    materialize(settings, instance, batch, tags={RETRY_TAG: "true"})
    assert Catalog(settings.home).quarantined() == []
    assert open_store(settings.store_uri).count() == {"image": 3}


def test_a_batch_in_quarantine_is_not_forgotten_when_the_next_one_is_well(settings, instance, pictures, tmp_path):
    (pictures / "cut.png").write_bytes(picture("coffee.png").read_bytes()[:5000])
    (bad,) = register(settings, pictures)
    materialize(settings, instance, bad)
    others = tmp_path / "others"
    others.mkdir()
    shutil.copy(picture("coffee.png"), others)
    (well,) = register(settings, others)
    result = materialize(settings, instance, well)
    assert metadata(result)["store"]["quarantined"] == 0
    for name in ("nothing_in_quarantine", "quarantine_rate"):
        check = checks(result)[name]
        assert not check.passed
        assert check.metadata["batch_quarantined"].value == 0
        (worst,) = check.metadata["worst_batches"].value.records  # type: ignore[union-attr]
        assert worst.data == {"batch": bad, "contents": 3, "in quarantine": 1, "percent": 33.33}
    shutil.copy(picture("rocket.jpg"), pictures / "cut.png")
    materialize(settings, instance, bad, tags={RETRY_TAG: "true"})
    assert checks(materialize(settings, instance, well))["nothing_in_quarantine"].passed


def test_the_check_reports_a_content_that_vanished_from_the_store(settings, instance, pictures, monkeypatch):
    """The check looks into the store itself, not at what the stage says it did."""
    (batch,) = register(settings, pictures)
    from fingerprint_dagster.index.lance import LanceStore

    monkeypatch.setattr(LanceStore, "put", lambda self, fingerprints: None)
    result = materialize(settings, instance, batch)
    assert not checks(result)["all_stored_or_quarantined"].passed


def test_pictures_are_shown_as_thumbnails_and_examples(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    said = metadata(materialize(settings, instance, batch))["hash"]
    assert str(said["thumbnails"]).count("data:image/jpeg;base64,") == 2
    records, _ = said["examples"]  # type: ignore[misc]
    assert [record.data["content"] for record in records] == ["chelsea.png", "coffee.png"]
    assert all("pdq_v1 x 8" in record.data["components"] for record in records)


def test_the_embed_stage_says_on_what_it_ran(settings, instance, pictures):
    (batch,) = register(settings, pictures)
    said = metadata(materialize(settings, instance, batch))["embed"]
    assert said["device"] in ("cpu", "cuda:0", "cuda")
    assert said["precision"] in ("fp32", "bf16", "fp16")
    assert isinstance(said["batch_size"], int)


def test_all_four_content_types_reach_the_store(settings, instance, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in (picture("coffee.png"), sample("audio/demo.mp3"), sample("video/demo.3gp"), sample("text/demo.txt")):
        shutil.copy(path, folder)
    for batch in register(settings, folder):
        assert materialize(settings, instance, batch).success
    assert open_store(settings.store_uri).count() == {"audio": 1, "image": 1, "text": 1, "video": 1}


def test_a_fifth_content_type_from_another_package_goes_through_all_assets(waveform, settings, instance, tmp_path):
    folder = tmp_path / "waves"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.wfm").write_text(f"WAVEFORM\n{number} {number + 1} {number + 2}")
    (batch,) = register(settings, folder)
    result = materialize(settings, instance, batch)
    assert result.success
    assert open_store(settings.store_uri).count() == {"waveform": 3}
    assert waveform.counts() == {"decode": 3, "embed": 3, "hash": 3}


def test_the_run_of_a_small_batch_overtakes_those_of_large_ones():
    from fingerprint_dagster.catalog import Batch
    from fingerprint_dagster.jobs.arrivals import requests_for

    small, large = requests_for([Batch("image-000002", "image", 3), Batch("image-000001", "image", 1000)])
    assert int(small.tags["dagster/priority"]) > int(large.tags.get("dagster/priority", "0"))


def test_the_steps_of_a_process_share_its_worker_processes(waveform, settings, instance, tmp_path):
    folder = tmp_path / "waves"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.wfm").write_text(f"WAVEFORM\n{number}")
    alone = settings.model_copy(update={"workers": 1})
    for batch in register(alone, folder):
        assert materialize(alone, instance, batch).success
    lines = [line.split() for line in waveform.calls.read_text().splitlines()]
    decoding, hashing = ({words[2] for words in lines if words[0] == stage} for stage in ("decode", "hash"))
    assert hashing == decoding
    assert len(decoding) == 1
