"""What is installed, and what is loaded: as a wheel, as an editable install, as a checkout, and without Dagster."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
DAGSTER_LAYER = ("fingerprint_dagster.assets", "fingerprint_dagster.resources", "fingerprint_dagster.jobs")


def python(code: str, *, path: list[Path], cwd: Path, executable: Path | str = sys.executable) -> Any:
    """Run code in a new process that sees only `path` and what is installed; the JSON that it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [str(executable), "-c", textwrap.dedent(code)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


FILES_OF_LAYER = f"""
    import importlib, json
    names = [*{DAGSTER_LAYER!r}, "fingerprint_dagster.definitions", "fingerprint_dagster.assets.decode"]
    print(json.dumps([importlib.import_module(name).__file__ for name in names]))
"""


# ---------------------------------------------------------------------- what is loaded


@pytest.mark.parametrize("module", ["fingerprint_dagster", "fingerprint_dagster.cli"])
def test_importing_is_cheap(module: str, tmp_path: Path) -> None:
    code = f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"
    loaded = {name.partition(".")[0] for name in python(code, path=[CHECKOUT], cwd=tmp_path)}
    assert "fingerprint_dagster" in loaded
    assert loaded & {"torch", "torchvision", "av", "librosa", "lancedb", "dagster", "pandas"} == set()


NO_DAGSTER = """
    import sys

    class NoDagster:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0].startswith("dagster"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, NoDagster())
"""


def test_the_engine_runs_where_dagster_is_not_installed(tmp_path: Path, waveform: Any) -> None:
    """From files to copies, in this process and in its workers, which all refuse to import Dagster."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(textwrap.dedent(NO_DAGSTER))
    for name, words in {"a": "1 2 3 4", "b": "1 2 3 5", "c": "7 8 9"}.items():
        (tmp_path / f"{name}.wfm").write_text(f"WAVEFORM\n{words}")
    code = f"""
        import json, sys
        from pathlib import Path
        import fingerprint_dagster
        from fingerprint_dagster.content import Content
        from fingerprint_dagster.index.store import open_store
        from fingerprint_dagster.media.registry import content_type
        from fingerprint_dagster.pipeline import Pipeline
        from fingerprint_dagster.search import find_copies
        from fingerprint_dagster.settings import Settings

        try:
            import dagster
        except ModuleNotFoundError:
            pass
        else:
            raise SystemExit("Dagster is there")

        folder = Path({str(tmp_path)!r})
        settings = Settings(home=folder / "home", workers=1)
        contents = [Content(name, (folder / (name + ".wfm")).as_uri(), "waveform") for name in "abc"]
        store = open_store("memory://")
        with Pipeline.from_settings(settings) as pipeline:
            fingerprints = pipeline.fingerprints(contents)
        store.put(fingerprints)
        matches = find_copies(store, content_type("waveform"), fingerprints[0], 10)
        print(json.dumps([[match.reference.content_id, match.score] for match in matches]))
    """
    assert python(code, path=[tmp_path / "without", waveform.site, CHECKOUT], cwd=tmp_path) == [["b", 0.6]]
    assert waveform.counts() == {"decode": 3, "embed": 3, "hash": 3}


# ---------------------------------------------------------------------- a checkout that is not installed


def test_a_checkout_works_from_a_folder_that_has_modules_of_the_same_names(tmp_path: Path) -> None:
    for name in ("assets", "resources", "jobs"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the foreign {name}.py')")
    assert python(FILES_OF_LAYER, path=[CHECKOUT], cwd=tmp_path) == [
        str(CHECKOUT / "assets" / "__init__.py"),
        str(CHECKOUT / "resources" / "__init__.py"),
        str(CHECKOUT / "jobs" / "__init__.py"),
        str(CHECKOUT / "fingerprint_dagster" / "definitions.py"),
        str(CHECKOUT / "assets" / "decode.py"),
    ]


# ---------------------------------------------------------------------- installed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as git would clone it with the changes of now, so that building leaves nothing here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_one_package_and_nothing_else(wheel: Path, copy: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"fingerprint_dagster", next(top for top in tops if top.endswith(".dist-info"))}
    packaged = {name for name in names if name.startswith("fingerprint_dagster/")}
    modules = {path.relative_to(copy).as_posix() for path in (copy / "fingerprint_dagster").rglob("*.py")}
    layer = {
        path.relative_to(copy).as_posix()
        for each in ("assets", "jobs", "resources")
        for path in (copy / each).rglob("*.py")
    }
    folder = copy / "fingerprint_dagster" / "models" / "weights"
    weights = {path.relative_to(copy).as_posix() for path in folder.iterdir()}
    assert {folder.joinpath(name).relative_to(copy).as_posix() for name in ("LICENSE", "NOTICE")} < weights
    layer = {f"fingerprint_dagster/{name}" for name in layer}
    assert packaged == {
        *modules,
        *layer,
        *weights,
        "fingerprint_dagster/calibration/shipped.json",
        *(f"fingerprint_dagster/duplicates/report.{ending}" for ending in ("css", "html", "js")),
        "fingerprint_dagster/media/text/boilerplate.npy",
        "fingerprint_dagster/py.typed",
    }
    assert "fingerprint_dagster/assets/decode.py" in packaged


def test_the_installed_wheel_works_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    (tmp_path / "elsewhere").mkdir()
    files = python(FILES_OF_LAYER, path=[site], cwd=tmp_path / "elsewhere")
    assert files[0] == str(site / "fingerprint_dagster" / "assets" / "__init__.py")
    assert all(file.startswith(f"{site}/fingerprint_dagster/") for file in files)
    code = f"""
        import json
        from importlib.metadata import distributions
        (installed,) = distributions(path=[{str(site)!r}])
        print(json.dumps([
            [entry.group, entry.name, entry.load().__module__]
            for entry in installed.entry_points
        ]))
    """
    assert sorted(python(code, path=[site], cwd=tmp_path / "elsewhere")) == [
        ["console_scripts", "fingerprint", "fingerprint_dagster.cli"],
        *(
            ["fingerprint_dagster.content_types", name, f"fingerprint_dagster.media.{name}"]
            for name in ("audio", "image", "text", "video")
        ),
    ]


@pytest.mark.slow
def test_an_editable_install_works(copy: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", venv], check=True)
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    site: Callable[..., str] = sysconfig.get_path
    packages = Path(site("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    # The libraries it needs: those of the environment that runs the tests, which may be a venv itself.
    (packages / "libraries.pth").write_text(site("purelib"))
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", *options, "--editable", copy]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
    files = python(FILES_OF_LAYER, path=[], cwd=tmp_path, executable=scripts / "python")
    assert files[0] == str(copy / "assets" / "__init__.py")
    assert all(file.startswith(f"{copy}/") for file in files)
    assert (scripts / "fingerprint").exists()
