"""Progress bars change nothing of what is iterated over, and say nothing where nobody watches."""

import pytest

from eisnn.data.progress import WORTH_SHOWING, track


@pytest.mark.parametrize("count", [3, WORTH_SHOWING + 7])
def test_every_item_comes_once_and_in_order(count, capsys):
    items = range(count)
    assert list(track(items, "reading")) == list(items)
    assert capsys.readouterr() == ("", "")
