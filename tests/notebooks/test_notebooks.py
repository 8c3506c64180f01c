"""Each notebook runs without error, its two forms say the same, and its charts say what they measure."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PAIRS = sorted(NOTEBOOKS.glob("*.ipynb"))
LOGS = {
    "demand": ["ag2", "claude_code", "normalised", "openai_messages", "pi"],
    "replay": ["claude_code", "opencode", "pi"],
}
"""Folders of logs that are enough to see that a notebook runs; one that is not named here gets all of them."""

SHOWN = {"demand": 11, "replay": 9, "what_if": 8}
"""How many tables and charts each notebook shows at least."""

SCRIPT = """
import json, sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
json.dump([kind for data in shown for kind in data], sys.stdout)
"""


def test_there_is_a_notebook() -> None:
    assert [path.stem for path in PAIRS] == sorted(SHOWN)


@pytest.mark.parametrize("notebook", PAIRS, ids=lambda path: path.stem)
def test_both_forms_of_a_notebook_are_in_sync(notebook: Path) -> None:
    import jupytext

    paired = [jupytext.read(notebook), jupytext.read(notebook.with_suffix(".py"))]
    cells = [[(cell.cell_type, cell.source.strip()) for cell in each.cells] for each in paired]
    assert cells[0] == cells[1], "run: jupytext --sync notebooks/*.ipynb"


UNITS = r"tokens|points|US dollars|share|%|calls|ratio|count|log units"


@pytest.mark.parametrize("notebook", PAIRS, ids=lambda path: path.stem)
def test_axes_of_figures_say_what_they_measure_and_in_which_unit(notebook: Path) -> None:
    tree = ast.parse(notebook.with_suffix(".py").read_text(encoding="utf-8"))
    axes = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) in {"alt.X", "alt.Y"}
    ]
    titles = {ast.unparse(axis.args[0]): {key.arg: ast.unparse(key.value) for key in axis.keywords} for axis in axes}
    assert len(titles) >= 5
    for field, given in titles.items():
        assert "title" in given, field
        assert not field.endswith(":Q'") or re.search(UNITS, given["title"]), field


@pytest.mark.parametrize("notebook", PAIRS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_what_a_user_asks(notebook: Path) -> None:
    import jupytext

    assert jupytext.read(notebook).cells[0].source.splitlines()[0].endswith("?")


@pytest.mark.parametrize("notebook", PAIRS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    import jupytext

    cells = [cell for cell in jupytext.read(notebook).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.parametrize("notebook", PAIRS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_anywhere_in_the_repository(notebook: Path, tmp_path: Path) -> None:
    """Some seconds each: much is planned or learned. Our strict warnings are not for their packages."""
    all_logs, within = NOTEBOOKS.parent / "fixtures" / "logs", tmp_path / "tests" / "deep"
    within.mkdir(parents=True)
    for name in LOGS.get(notebook.stem, [folder.name for folder in all_logs.iterdir()]):
        shutil.copytree(all_logs / name, tmp_path / "fixtures" / "logs" / name)
    command = [sys.executable, "-c", SCRIPT, str(notebook), str(within)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count('"text/html"') >= SHOWN[notebook.stem], "tables and charts are shown"
