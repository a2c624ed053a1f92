"""What the README shows is true."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from media_files import picture
from running import CHECKOUT, environment

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def test_the_python_example_runs(home: Path, tmp_path: Path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shutil.copy(picture("coffee.png"), tmp_path)
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    digest, pdq = done.stdout.split()
    assert digest == "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"
    assert len(pdq) == 64


def test_every_setting_is_documented():
    from fingerprint_dagster.settings import Settings

    page = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    missing = [name for name in Settings.model_fields if f"FINGERPRINT_{name.upper()}" not in page]
    assert not missing


def test_every_command_is_in_the_readme():
    from fingerprint_dagster.cli import command

    missing = [name for name in command.commands if f"`fingerprint {name}" not in README]
    assert not missing


def test_every_linked_file_is_there():
    for page in PAGES:
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_service_example_runs(home: Path, tmp_path: Path):
    page = (CHECKOUT / "docs" / "service.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copy(picture("coffee.png"), tmp_path)
    (tmp_path / "example.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fp1:image:")
