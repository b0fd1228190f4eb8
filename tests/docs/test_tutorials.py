"""The tutorials run as they are, and are kept with the outputs of such a run."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")
ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


@pytest.fixture(params=TUTORIALS, ids=lambda file: file.stem)
def kept(request):
    return nbformat.read(request.param, as_version=4)


def test_there_are_four():
    names = ["balance-to-bimodality", "decision-task", "drop-in-layers", "optogenetics"]
    assert [file.stem for file in TUTORIALS] == names


def test_they_are_kept_as_run_from_top_to_bottom(kept):
    nbformat.validate(kept)
    assert [cell.execution_count for cell in code(kept)] == list(range(1, len(code(kept)) + 1))
    assert pictures(kept) >= 1
    outputs = [output for cell in code(kept) for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert len(nbformat.writes(kept)) < 5e5


def test_each_cell_is_explained(kept):
    """Words come before code, and no more than three cells of code follow each other."""
    kinds = [cell.cell_type for cell in kept.cells]
    assert kinds[0] == "markdown"
    assert "code code code code" not in " ".join(kinds)


def test_links_lead_somewhere(kept):
    text = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+?)\)", text)
    assert targets
    assert all((ROOT / "docs" / "tutorials" / target).exists() for target in targets), targets


@pytest.mark.parametrize("file", TUTORIALS, ids=lambda file: file.stem)
def test_they_run(file, monkeypatch):
    """Half a minute of one core each; figures and lines come out as they are kept, numbers may differ by machine."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel is another process
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from run_tutorials import run

    before, after = nbformat.read(file, as_version=4), run(file)
    assert pictures(after) == pictures(before)
    lines = [[o.text.count("\n") for c in code(n) for o in c.outputs if "text" in o] for n in (before, after)]
    assert sum(lines[0]) == sum(lines[1])
