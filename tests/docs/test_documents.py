"""What the documents say is true: Python blocks run, recipes and links exist."""

import re
from pathlib import Path

import pytest

from eisnn.train import recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/record-measure-perturb.md"])
def test_python_blocks_run_one_after_the_other(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    exec(compile("\n".join(blocks), document, "exec"), {})


def test_the_table_of_recipes_is_that_of_the_package():
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| (\d+) \| (\d+) \|", README, re.MULTILINE)
    written = {name: (float(lr), float(warmup), int(epochs)) for name, lr, warmup, epochs in rows}
    real = {
        name: (r.optimization.lr, r.optimization.warmup_epochs, r.optimization.epochs)
        for name, r in recipes().items()
        if not name.endswith(("-bn", "-plus"))
    }
    assert written == real


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target
