"""What the site makes by itself: the API reference, from docstrings that are plain text."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import eisnn

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_room(conf):
    assert {f"eisnn.{room}" for room in eisnn._SUBMODULES} <= conf.ROOMS.keys()
    listed = re.findall(r"^api/(\S+)$", (ROOT / "docs" / "reference" / "api.md").read_text(), re.MULTILINE)
    assert listed == list(conf.ROOMS)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("`EIConv2d`s of |W|, eqs. (1)-(4).", "``EIConv2d``\\ s of \\|W\\|, equations (1)-(4)."),
        ("Sum.\nReturns: the sum.", "Sum.\n\n:returns: the sum."),
        ("As follows:\n\n    a `b`  c", "As follows::\n\n    a `b`  c"),
        ("Parts:\n\nx     one\nlong  two `b`   three", ".. code-block:: text"),
    ],
)
def test_a_docstring_becomes_markup(conf, written, read):
    lines = written.split("\n")
    conf.as_rst(None, "function", "f", None, None, lines)
    assert read in "\n".join(lines)


def test_a_constant_has_the_text_below_it_rather_than_that_of_its_type(conf):
    for name, value, begins in (("PLUS", eisnn.PLUS, "Our best circuit"), ("COLORS", ("blue",), "")):
        lines = inspect.getdoc(type(value)).split("\n")
        conf.as_rst(None, "data", f"eisnn.{name}", value, None, lines)
        assert lines[0].startswith(begins)
        assert bool("".join(lines)) == bool(begins)


def test_links_to_folders_become_their_names(conf):
    source = ["[runs](../experiments/results/table2) and [how](../CONTRIBUTING.md#a-model), [here](results.md)"]
    conf.of_the_site(None, "results", source)
    assert source == [
        "runs (`experiments/results/table2`) and [how](developers/contributing.md#a-model), [here](results.md)"
    ]
