"""What a page consists of, and how it becomes one HTML file that needs nothing else. Knows nothing of networks."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Panel(NamedTuple):
    """One picture of a figure: an SVG file, what it shows in words for those who cannot see it, and its heading."""

    svg: bytes
    alt: str
    heading: str = ""
    photo: bool = False  # its brightness means something, so that a dark page does not invert it

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"


class Key(NamedTuple):
    """An entry of a figure's legend; `line` is solid, dashed, dashdot or dotted, or the mark dot or cross."""

    label: str
    color: str
    line: str = "solid"


@dataclass(frozen=True)
class Figure:
    """Pictures of the same kind, side by side where there is room, with a legend and a sentence on how to read them."""

    title: str
    panels: Sequence[Panel]
    reading: str
    legend: Sequence[Key] = ()
    kind: str = "figure"


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers, the first column a heading, with a sentence on how to read them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    reading: str = ""
    kind: str = "table"
    text: bool = False


Block = Figure | Table


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in the table of contents; without blocks, `text` says why it is empty."""

    title: str
    text: str
    blocks: Sequence[Block] = ()

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Fact(NamedTuple):
    """A number to see first."""

    value: str
    label: str


def render(title: str, subtitle: str, facts: Sequence[Fact], notes: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as HTML: no script, no font, no picture from elsewhere.

    Args:
        title, subtitle: its headings.
        facts: the numbers to see first.
        notes: what a reader must know before all else, such as that the run has not ended.
        sections: in order; their titles differ.
    """
    environment = Environment(
        loader=PackageLoader("eisnn.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, subtitle=subtitle, facts=facts, notes=notes, sections=sections)
