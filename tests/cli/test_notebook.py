"""The notebook of the examples runs as it stands, with small settings."""

import json
from pathlib import Path

import matplotlib as mpl
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "from_training_to_c.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    (settings,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    settings["source"] = ['recipe, budget, epochs, data = "digits-w3a4", "cpu", 1, None']
    assert all(cell["outputs"] or cell is settings for cell in cells), "it is checked in with what it prints"
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    with mpl.rc_context({"backend": "agg"}):
        for cell in cells:
            exec("".join(cell["source"]), space)  # as Jupyter does
    printed = capsys.readouterr().out
    assert printed.count(" tensors, 0 different") == 3
    assert (tmp_path / "notebook.html").exists()
    assert (tmp_path / "notebook_c" / "maqd_model.h").exists()
