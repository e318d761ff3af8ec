"""The notebooks, run cell by cell as Jupyter would."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from datasets import dataset
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an error, in a folder of its own; ours orders CDNOW's customers, and adds up to about what they spent."""
    dataset("cdnow")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are cleared before a commit"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = "\n".join(output["data"]["text/plain"] for output in outputs if "data" in output)
    (auc,) = re.findall(r"roc_auc.*\nPerennial +(\S+)", shown)
    assert 0.7 < float(auc) < 0.9
    error, said, came = map(float, re.findall(r"mean error.*\nPerennial +(\S+) +(\S+) +(\S+)", shown)[0])
    assert said == pytest.approx(came, rel=0.4)
    assert error < 20
    assert int(re.findall(r"(\d+)% within their bounds", shown)[0]) > 75
