"""The tables of the pages are those that the committed results give."""

import re

import pytest
import tables


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: str(page.relative_to(tables.ROOT)))
def test_the_tables_of_a_page_are_current(page):
    """Else: python experiments/tables.py."""
    text = page.read_text(encoding="utf-8")
    assert tables.current(text) == text
    assert len(re.findall("<!-- table ", text)) == len(tables.PLACE.findall(text))  # each has its end


def test_every_table_has_its_place_on_some_page():
    written = {name for page in tables.pages() for _, name, _ in tables.PLACE.findall(page.read_text(encoding="utf-8"))}
    assert written == tables.TABLES.keys()


def test_a_number_that_was_changed_by_hand_is_put_right():
    place = "before\n<!-- table demo -->\n{}<!-- end of table -->\nafter"
    assert tables.current(place.format("| 99.9 |\n")) == place.format(f"\n{tables.TABLES['demo']()}\n\n")


def test_differences_are_paired_by_seed():
    one, other = ([{"seed": seed, "accuracy": [a], "lost": None} for seed, a in pairs] for pairs in (
        [(0, 50.0), (1, 60.0), (2, 70.0)], [(2, 69.0), (0, 49.0), (1, 59.0)],
    ))  # fmt: skip
    assert tables.less(one, other) == "+1.0 (+1.0 to +1.0)"
    assert tables.less(one, one) == ""
    assert tables.less(one[:1], other) == ""  # of one seed there is no interval
