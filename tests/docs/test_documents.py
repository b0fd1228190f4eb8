"""What the documents say is true: Python blocks run, recipes and links exist."""

import re
from pathlib import Path

import numpy as np
import pytest
import tables
from event_files import random_events

from eisnn.data.events import write
from eisnn.train import recipes

ROOT = Path(__file__).parents[2]
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


RUN = {  # and what of other libraries they import
    "README.md": (),
    "docs/quick-start.md": ("matplotlib",),
    "docs/how-to/coming-from.md": ("spikingjelly", "snntorch"),
    "docs/how-to/convert.md": ("snntorch",),
    "docs/how-to/events.md": (),
    "docs/how-to/record-measure-perturb.md": (),
    "docs/how-to/runs.md": (),
}


@pytest.mark.parametrize("document", RUN)
def test_python_blocks_run_one_after_the_other(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for library in RUN[document]:
        pytest.importorskip(library)
    write(random_events(np.random.default_rng(0), 2000, (34, 34)), "a.dat")
    Path("a.dat").rename("recording.raw")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), document, "exec"), {})


def test_every_figure_of_the_paper_belongs_to_a_recipe():
    assert tables.PUBLISHED.keys() <= recipes().keys()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_every_test_that_a_page_names_is_there():
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    named = {name for page in DOCUMENTS for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert sorted(name for name in named if not re.search(rf"def {name}\(", tests)) == []


def test_no_withdrawn_claim_is_made_again():
    """In no page, notebook, docstring, help text or message."""
    made = [
        f"{file.relative_to(ROOT)}: {found[0]}"
        for file in [*TEXTS, *PROGRAMS]
        for claim in WITHDRAWN
        if (found := re.search(claim, plain(file.read_text(encoding="utf-8")), re.IGNORECASE))
    ]
    assert made == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_a_comment_of_the_site(document):
    """MyST leaves out a line that begins with a percent sign, without a word."""
    assert not re.findall(r"^ *%.*", document.read_text(encoding="utf-8"), re.MULTILINE)


def test_nothing_points_to_a_release_that_does_not_exist():
    """A card that was published cannot be mended; take this out with the first release on an index."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("eisnn/**/*.md"), *ROOT.glob("eisnn/**/*.py")]
    assert [page.name for page in pages if "pypi.org/project/eisnn" in page.read_text(encoding="utf-8")] == []


def test_nothing_is_cited_that_readers_do_not_have():
    absent = r"\bMETHOD\b|[Mm]ethods?, sections? \d|\(P\d+\)"
    assert [f for f in [*DOCUMENTS, *PROGRAMS] if re.search(absent, f.read_text(encoding="utf-8"))] == []


def test_every_equation_of_ours_that_is_cited_is_there():
    method = (ROOT / "docs" / "science" / "method.md").read_text(encoding="utf-8")
    cited = {number for file in PROGRAMS for number in re.findall(r"\((M\d+)\)", file.read_text(encoding="utf-8"))}
    assert cited
    assert cited <= set(re.findall(r"\\tag\{(M\d+)\}", method))


def plain(text: str) -> str:
    """Without line breaks, those of strings of a notebook among them, and marks of comments."""
    return re.sub(r"[\s#]+", " ", re.sub(r'\\n",?\s*"?', " ", text))


@pytest.mark.parametrize(
    "text",
    ["Dale's law is kept\nand nothing\n    # normalized.", '"each keeps the total\\n",\n    "weight of its synapses"'],
)
def test_a_withdrawn_claim_would_be_found(text):
    assert any(re.search(claim, plain(text)) for claim in WITHDRAWN)
