"""The settings: from the environment or by assignment, checked either way."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.settings import OTHER_NAMES, Settings, available_cores, get_settings


@pytest.fixture(autouse=True)
def fresh(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the process that runs the tests, but for the home; a folder without a `.env`."""
    monkeypatch.chdir(tmp_path)
    for name in OTHER_NAMES:
        monkeypatch.delenv(name, raising=False)


VALUES = {
    "store": ("memory://", "memory://"),
    "memo": ("memory://", "memory://"),
    "memo_max_bytes": ("1000", 1000),
    "memo_ttl_seconds": ("12.5", 12.5),
    "blobs_max_bytes": ("1000", 1000),
    "workers": ("3", 3),
    "runs": ("4", 4),
    "timeout_seconds": ("0.5", 0.5),
    "decode_memory_bytes": (str(2 << 30), 2 << 30),
    "max_content_bytes": ("1000", 1000),
    "device": ("cuda:1", "cuda:1"),
    "precision": ("bf16", "bf16"),
    "batch_size": ("16", 16),
    "runtime": ("openvino", "openvino"),
    "image_model": ("resnet50", "resnet50"),
    "image_weights": ("/resnet50.pth", Path("/resnet50.pth")),
    "ipfs_gateway": ("http://localhost:8080, https://ipfs.io", ("http://localhost:8080", "https://ipfs.io")),
    "allowed_schemes": ("https,file", ("https", "file")),
    "allowed_hosts": ("example.org, *.example.net", ("example.org", "*.example.net")),
    "denied_hosts": ("203.0.113.0/24", ("203.0.113.0/24",)),
    "allowed_networks": ("10.0.0.0/8,::1", ("10.0.0.0/8", "::1")),
    "allowed_folders": ("/data,/media", (Path("/data"), Path("/media"))),
    "text_boilerplate": ("/notices", Path("/notices")),
    "sandbox": ("false", False),
    "decoder_folders": ("/models", (Path("/models"),)),
    "downloads_per_host": ("2", 2),
    "requests_per_second": ("0.5", 0.5),
    "proxy": ("http://proxy:3128", "http://proxy:3128"),
    "cuda_visible_devices": ("0,1", "0,1"),
    "cache_ttl_seconds": ("60", 60.0),
    "cache_max_bytes": ("1000", 1000),
    "cache_fresh_seconds": ("5", 5.0),
    "max_in_flight": ("8", 8),
    "batch_wait_ms": ("2.5", 2.5),
    "journal_sync_seconds": ("0", 0.0),
    "watched": ("/mine,owner=me", ("/mine", "owner=me")),
    "watch_file": ("/found.jsonl", Path("/found.jsonl")),
    "watch_webhook": ("https://example.org/hook", "https://example.org/hook"),
    "drain_seconds": ("5", 5.0),
    "max_waiting": ("8", 8),
    "max_upload_bytes": ("1000", 1000),
    "api_keys": ("one,two", ("one", "two")),
    "max_batch_items": ("100", 100),
    "max_uploads_in_memory": ("2", 2),
    "inbox": ("/in", Path("/in")),
    "watch_list": ("https://example.org/list.csv", "https://example.org/list.csv"),
    "watch_objects": ("s3://bucket/in/", "s3://bucket/in/"),
    "quarantine_alert": ("0.1", 0.1),
    "quarantine_keep_days": ("7", 7.0),
}


def test_every_setting_is_tested_here() -> None:
    assert {*VALUES, "home"} == set(Settings.model_fields)


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_is_read_from_its_environment_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = VALUES[name]
    monkeypatch.setenv(f"FINGERPRINT_{name.upper()}", text)
    assert getattr(get_settings(), name) == value


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_can_be_assigned(name: str) -> None:
    settings = get_settings()
    setattr(settings, name, VALUES[name][1])
    assert getattr(settings, name) == VALUES[name][1]


@pytest.mark.parametrize("name", [*VALUES, "home"])
def test_an_empty_variable_is_like_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"FINGERPRINT_{name.upper()}", raising=False)
    default = getattr(Settings(), name)
    monkeypatch.setenv(f"FINGERPRINT_{name.upper()}", "")
    assert getattr(get_settings(), name) == default


WRONG = [
    ("memo_max_bytes", "many"),
    ("memo_max_bytes", "0"),
    ("memo_ttl_seconds", "-1"),
    ("workers", "-1"),
    ("timeout_seconds", "soon"),
    ("decode_memory_bytes", "1000"),
    ("precision", "fp8"),
    ("batch_size", "0"),
    ("allowed_schemes", "gopher"),
    ("allowed_hosts", "http://example.org/"),
    ("allowed_networks", "10.0.0.0/99"),
    ("ipfs_gateway", "ipfs.io"),
    ("downloads_per_host", "0"),
    ("proxy", "proxy:3128"),
    ("runtime", "tensorrt"),
    ("cache_ttl_seconds", "0"),
    ("cache_max_bytes", "-1"),
    ("max_in_flight", "0"),
    ("journal_sync_seconds", "-1"),
]


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_is_a_usage_error_that_names_the_variable(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"FINGERPRINT_{name.upper()}", text)
    with pytest.raises(UsageError, match=f"^FINGERPRINT_{name.upper()}='{text}': .+") as caught:
        get_settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_a_wrong_value_cannot_be_assigned(name: str, text: str) -> None:
    settings = get_settings()
    before = getattr(settings, name)
    with pytest.raises(ValidationError, match=name):
        setattr(settings, name, text)
    assert getattr(settings, name) == before


def test_variables_of_other_programs_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS", "99")
    monkeypatch.setenv("FINGERPRINT_UNKNOWN", "x")
    assert get_settings().workers == 0


def test_everything_lives_in_the_home_by_default(home: Path) -> None:
    settings = get_settings()
    assert settings.home == home
    assert (settings.store_uri, settings.memo_uri) == (str(home / "index"), str(home / "memo"))
    settings.store, settings.memo = "/elsewhere", "memory://"
    assert (settings.store_uri, settings.memo_uri) == ("/elsewhere", "memory://")


def test_without_a_variable_the_home_is_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINGERPRINT_HOME")
    assert get_settings().home.is_absolute()
    assert get_settings().home.name == "fingerprint_dagster"


def test_folders_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINGERPRINT_HOME", "here")
    monkeypatch.setenv("FINGERPRINT_INBOX", "~/in")
    monkeypatch.setenv("HOME", "/somebody")
    assert get_settings().home == tmp_path / "here"
    assert get_settings().inbox == Path("/somebody/in")


def test_zero_workers_and_runs_follow_the_cores() -> None:
    settings = get_settings()
    assert settings.worker_count == available_cores() >= 1
    assert settings.run_count == max(2, available_cores() // 2)
    settings.workers, settings.runs = 3, 1
    assert (settings.worker_count, settings.run_count) == (3, 1)


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = get_settings()
    monkeypatch.setenv("FINGERPRINT_WORKERS", "9")
    assert get_settings() is settings
    assert settings.workers == 0


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is_for(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


def test_paths_are_the_same_from_any_folder(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINGERPRINT_HOME", "here")
    monkeypatch.setenv("FINGERPRINT_STORE", "fingerprints")
    monkeypatch.setenv("FINGERPRINT_MEMO", "memory://")
    get_settings.cache_clear()
    settings = get_settings()
    assert settings.environment() == {
        "FINGERPRINT_HOME": str(tmp_path / "here"),
        "FINGERPRINT_STORE": str(tmp_path / "fingerprints"),
        "FINGERPRINT_MEMO": "memory://",
    }


# ---------------------------------------------------------------------- other names, `.env`, and the module


OTHER = [
    ("MAX_WORKERS", "3", "workers", 3),
    ("FINGERPRINT_MAX_WORKERS", "3", "workers", 3),
    ("BATCH_SIZE", "16", "batch_size", 16),
    ("TIMEOUT_SECONDS", "12.5", "timeout_seconds", 12.5),
    ("CACHE_TTL", "60", "cache_ttl_seconds", 60.0),
    ("FINGERPRINT_CACHE_TTL", "60", "cache_ttl_seconds", 60.0),
    ("CUDA_VISIBLE_DEVICES", "1", "cuda_visible_devices", "1"),
]


def test_every_other_name_is_tested_here() -> None:
    assert {variable: name for variable, _, name, _ in OTHER} == OTHER_NAMES


@pytest.mark.parametrize(("variable", "text", "name", "value"), OTHER)
def test_some_settings_have_another_name(
    variable: str, text: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(get_settings(), name) == value


def test_the_proper_name_comes_before_the_other_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_WORKERS", "3")
    monkeypatch.setenv("FINGERPRINT_WORKERS", "5")
    assert get_settings().workers == 5


@pytest.mark.parametrize("text", ["many", "0"])
def test_an_error_names_the_variable_that_was_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_SIZE", text)
    with pytest.raises(UsageError, match=f"^BATCH_SIZE='{text}': .+"):
        get_settings()


def test_settings_are_read_from_the_file_env_of_the_current_folder(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / ".env").write_text("FINGERPRINT_RUNS=3\nMAX_WORKERS=7\nFINGERPRINT_BATCH_SIZE=4\nOTHER=1\n")
    monkeypatch.setenv("FINGERPRINT_RUNS", "2")
    settings = get_settings()
    assert (settings.runs, settings.workers, settings.batch_size) == (2, 7, 4)


def test_a_wrong_value_in_the_file_env_is_named_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TIMEOUT_SECONDS=soon\n")
    with pytest.raises(UsageError, match=r"^TIMEOUT_SECONDS='soon': .+"):
        get_settings()


def test_what_is_set_in_python_or_in_the_file_env_is_handed_to_other_processes(
    home: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / ".env").write_text("FINGERPRINT_SANDBOX=false\nMAX_WORKERS=7\n")
    settings = get_settings()
    settings.allowed_hosts = ("a.example", "b.example")
    settings.timeout_seconds = 12.5
    handed = settings.environment()
    for name, value in handed.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").unlink()
    assert Settings() == settings
    assert handed["FINGERPRINT_HOME"] == str(home)


def test_the_module_stands_for_the_settings_of_the_process() -> None:
    from fingerprint_dagster import settings

    settings.max_workers = 8
    settings.timeout_seconds = 5.0
    assert (settings.max_workers, get_settings().workers, get_settings().timeout_seconds) == (8, 8, 5.0)
    with pytest.raises(ValidationError, match="workers"):
        settings.max_workers = -1
    with pytest.raises(AttributeError, match="no such setting"):
        _ = settings.no_such_thing


def test_an_answer_of_the_service_has_30_seconds_unless_something_else_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().timeout_seconds, Settings().service_timeout_seconds) == (60.0, 30.0)
    monkeypatch.setenv("TIMEOUT_SECONDS", "60")
    assert Settings().service_timeout_seconds == 60.0
