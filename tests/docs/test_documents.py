"""What the documents say is true: Python blocks run, recipes and links exist."""

import re
from pathlib import Path

import pytest

from eisnn.train import recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [file for file in (ROOT / "docs").rglob("*.*") if "_build" not in file.parts]
DOCUMENTS = [*ROOT.glob("*.md"), *(page for page in PAGES if page.suffix == ".md")]
NOTEBOOKS = [page for page in PAGES if page.suffix == ".ipynb"]
TEXTS = [*DOCUMENTS, *NOTEBOOKS, ROOT / "pyproject.toml", ROOT / "CITATION.cff"]
PROGRAMS = [file for room in ("eisnn", "experiments", "benchmarks", "scripts") for file in (ROOT / room).rglob("*.py")]
# What we have said and what is not true; what is true, docs/science/exact-balance.md says.
WITHDRAWN = (
    r"nothing (is )?normali[sz]ed",
    r"(train|trains|trained|learn|learns) without( any)? normali[sz]ation",
    r"needs? no (statistics of activity|normali[sz]ation)",
    r"so none is a normali[sz]ation",
    r"no activity is measured",
    r"nothing is measured from activity",
    r"keeps? the total (strength|weight)",
    r"(is|:) synaptic scaling",
    r"for a balance that training breaks",
    r"only leaving it out costs",
    r"batch norm and its kin",
    r"contours against dense maps, as the paper says",
)


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/record-measure-perturb.md", "docs/how-to/convert.md"])
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
        if not name.endswith(("-bn", "-plus", "-published"))
    }
    assert written == real


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_no_withdrawn_claim_is_made_again():
    """In no page, notebook, docstring, help text or message."""
    made = [
        f"{file.relative_to(ROOT)}: {found[0]}"
        for file in [*TEXTS, *PROGRAMS]
        for claim in WITHDRAWN
        if (found := re.search(claim, plain(file.read_text(encoding="utf-8")), re.IGNORECASE))
    ]
    assert made == []


def plain(text: str) -> str:
    """Without line breaks, those of strings of a notebook among them, and marks of comments."""
    return re.sub(r"[\s#]+", " ", re.sub(r'\\n",?\s*"?', " ", text))


@pytest.mark.parametrize(
    "text",
    ["Dale's law is kept\nand nothing\n    # normalized.", '"each keeps the total\\n",\n    "weight of its synapses"'],
)
def test_a_withdrawn_claim_would_be_found(text):
    assert any(re.search(claim, plain(text)) for claim in WITHDRAWN)
