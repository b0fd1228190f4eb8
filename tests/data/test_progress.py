"""Progress bars change nothing of what is iterated over, and say nothing where nobody watches."""

import pytest
from rich.console import Console

from eisnn.data import progress
from eisnn.data.progress import WORTH_SHOWING, track


@pytest.mark.parametrize("count", [3, WORTH_SHOWING + 7])
def test_every_item_comes_once_and_in_order(count, capsys):
    items = range(count)
    assert list(track(items, "reading")) == list(items)
    assert capsys.readouterr() == ("", "")


def test_a_bar_within_a_bar_stands_below_it_while_it_lasts(monkeypatch):
    screen = Console(force_terminal=True, record=True, width=100)
    monkeypatch.setattr(progress, "_console", lambda: {"console": screen, "auto_refresh": False})
    for _ in track("ab", "outer", 1):
        assert list(track("cde", "inner", 1)) == list("cde")
        (shown,) = progress._open
        assert [task.description for task in shown.tasks] == ["outer"]
    assert progress._open == []
    shown = screen.export_text()
    assert "outer" in shown
    assert "inner" in shown
