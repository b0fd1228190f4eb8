"""The documentation site: `make docs` builds it into docs/_build/html, every warning an error.

The pages are Markdown that reads on its own, too. Made here are the API reference, from the docstrings, the cards of
trained networks, and what becomes of links to the rest of the repository.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
import eisnn  # noqa: E402
from eisnn.interop.shared import CARD, IN_PACKAGE, network_names  # noqa: E402

project = "eisnn"
author = "The eisnn developers"
version = release = eisnn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_show_copyright = False
html_math_renderer = "mathml"
html_title = "eisnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tests/docs/test_tutorials.py runs them
copybutton_prompt_text = ">>> "
suppress_warnings = ["mystnb.unknown_mime_type"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autosummary_generate = False  # of the tables only: the pages are written below
python_maximum_signature_line_length = 88

# The API reference: a page for each room that users import from, with the names that it exports.
ROOMS = {
    "eisnn": "Layers, networks, initialization, training",
    "eisnn.nn": "Layers and their options",
    "eisnn.models": "Networks",
    "eisnn.methods": "Circuits by name",
    "eisnn.init": "E-I Init",
    "eisnn.cortex": "Cortical circuits",
    "eisnn.functional": "The mathematics",
    "eisnn.ops": "The same, fast",
    "eisnn.data": "Data sets",
    "eisnn.data.events": "Recordings of event cameras",
    "eisnn.live": "Streams",
    "eisnn.train": "Training",
    "eisnn.analysis": "Record, measure, perturb",
    "eisnn.analysis.figures": "Figures",
    "eisnn.interop": "Other formats",
    "eisnn.deploy": "Costs and export",
    "eisnn.bench": "Benchmarks",
    "eisnn.report": "Reports",
    "eisnn.explore": "Explorer",
}
INCLUDED = {"CONTRIBUTING.md": "developers/contributing.md", "CHANGELOG.md": "changelog.md"}
PAGE = """\
{title}
{line}

.. automodule:: {room}

{elsewhere}

.. autosummary::

   {names}

{entries}
"""


def write_api(app: Any) -> None:
    """The pages of the reference, into docs/reference/api, which git ignores."""
    folder = DOCS / "reference" / "api"
    folder.mkdir(exist_ok=True)
    described: list[Any] = []
    for room, title in ROOMS.items():
        module = importlib.import_module(room)
        exported = eisnn._EXPORTS if module is eisnn else module.__all__
        names = [name for name in exported if not inspect.ismodule(getattr(module, name))]
        at_the_top = [name for name in names if module is not eisnn and eisnn._EXPORTS.get(name) == room]
        names = [name for name in names if name not in at_the_top]
        values = {name: getattr(module, name) for name in names}
        summed = "\n   ".join(
            name for name, value in values.items() if inspect.isclass(value) or inspect.isroutine(value)
        )
        heading = f"{title} (``{room}``)"
        text = PAGE.format(
            title=heading,
            line="=" * len(heading),
            room=room,
            elsewhere="Described under ``eisnn``: " * bool(at_the_top)
            + ", ".join(f":py:obj:`~eisnn.{name}`" for name in at_the_top),
            names=summed,
            entries="\n\n".join(entry(n, v, any(v is seen for seen in described)) for n, v in values.items()),
        )
        described += values.values()
        write(folder / f"{room}.rst", text)


def write_cards(app: Any) -> None:
    """The cards of the trained networks in the package, into docs/reference/cards, which git ignores."""
    folder = DOCS / "reference" / "cards"
    folder.mkdir(exist_ok=True)
    for name in network_names():
        text = (IN_PACKAGE / name / CARD).read_text(encoding="utf-8")
        write(folder / f"{name}.md", text.split("---\n", 2)[2].lstrip())


def write(file: Path, text: str) -> None:
    """Only where it changes something, so that an unchanged page is not built again."""
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")


def entry(name: str, value: Any, again: bool) -> str:
    """`again`: it is described on another page as well."""
    kind, members = "data", ["no-value"]
    if inspect.isclass(value):
        kind, members = "class", ["members"]
    elif inspect.isroutine(value):
        kind, members = "function", []
    options = "".join(f"\n   :{option}:" for option in [*members, *(["no-index"] if again else [])])
    return f".. auto{kind}:: {name}{options}"


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings are plain text: `code` in single backticks, code blocks after a colon, aligned columns, and
    `Returns:` on a line with what it is."""
    text = "\n".join(lines)
    if what == "data" and text.strip() == inspect.getdoc(type(obj)):
        text = written_below(name, obj)  # rather than that of its type
    made: list[str] = []
    for paragraph in text.split("\n\n"):
        if made and made[-1].endswith(":") and indented(paragraph):
            made[-1] += ":"
        elif not indented(paragraph) and re.search(r"(?m)^\S.*\S {3,}\S|^ +\S+ {2,}\S", paragraph):
            paragraph = ".. code-block:: text\n\n" + re.sub(r"(?m)^", "    ", paragraph)
        else:
            paragraph = markup(paragraph)
        made.append(paragraph)
    lines[:] = "\n\n".join(made).split("\n")


def written_below(name: str, value: Any) -> str:
    """The docstring below a constant, in the module of its type; "" if there is none."""
    module = type(value).__module__
    if module.partition(".")[0] != "eisnn":
        return ""
    return "\n".join(ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name.rpartition(".")[2]), ()))


def indented(paragraph: str) -> bool:
    return all(not line or line.startswith("    ") for line in paragraph.split("\n"))


def markup(text: str) -> str:
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)(\w?)", lambda m: f"``{m[1]}``" + (f"\\ {m[2]}" if m[2] else ""), text)
    text = re.sub(r"(?m)^(Returns|Raises|Yields|Source): *(?=\S)", lambda m: f"\n:{m[1].lower()}: ", text)
    text = re.sub(r"\b([Ee])q(s?)\. (?=\()", r"\1quation\2 ", text)  # a summary ends with its first full stop
    return text.replace("|", r"\|")


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def mathml(writer: Any, node: Any) -> None:
    """Equations as MathML, which browsers draw by themselves: no script, no network."""
    tex, _, tag = node.astext().strip().partition(r"\tag{")
    block = not isinstance(node, nodes.math)
    try:
        made = tex2mathml(tex.strip(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s in %s", error, tex, location=node)
        raise nodes.SkipNode from error
    number = f'<span class="number">({tag.rstrip("}")})</span>' if tag else ""
    writer.body.append(f'<div class="equation">{made}{number}</div>' if block else made)
    raise nodes.SkipNode


def of_the_site(app: Any, page: str, source: list[str]) -> None:
    """Links to folders and to Markdown outside of the site become their names; pages that it includes are found."""
    here, up = (DOCS / page).parent, "../" * (len(Path(page).parts) - 1)
    included = {DOCS.parent / file: place for file, place in INCLUDED.items()}
    included |= {IN_PACKAGE / name / CARD: f"reference/cards/{name}.md" for name in network_names()}

    def link(found: re.Match[str]) -> str:
        words, place, anchor = found.groups(default="")
        target = (here / place).resolve()
        if target in included:
            return f"[{words}]({up}{included[target]}{anchor})"
        if target.is_dir() or (target.suffix == ".md" and DOCS not in target.parents):
            return f"{words} (`{target.relative_to(DOCS.parent)}`)"
        return found[0]

    if not page.endswith("ipynb"):
        source[0] = re.sub(r"\[([^\]]+)\]\(((?!https?:)[^)#\s]+)(#[^)\s]*)?\)", link, source[0])


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("builder-inited", write_api)
    app.connect("builder-inited", write_cards)
    app.connect("source-read", of_the_site)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip)
