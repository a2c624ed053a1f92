"""The notebook that a reader follows: every cell runs, and shows what it is there to show."""

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "copies.ipynb"


def _shown(notebook: Any) -> str:
    """What the cells have shown, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra notebook is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("FINGERPRINT_TIMEOUT_SECONDS", "300")  # A busy machine is no reason to give up a file.
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    try:
        client.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    except client.exceptions.CellExecutionError as error:
        pytest.fail(f"{_shown(notebook)}\n{error}")
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert kinds.count("image/jpeg") == 3  # pictures, spectrograms, timings
    assert kinds.count("text/html") >= 6
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "demo.mp4 (" in said
    assert "from the memory" in said


def test_the_notebook_is_kept_as_it_was_executed() -> None:
    nbformat = pytest.importorskip("nbformat", reason="the extra notebook is not installed")
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
