"""Events in 32 bits are the same events when they are unpacked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eisnn.data.events import Events
from eisnn.data.events.packing import Packing

SIZES = ((34, 34), (128, 128), (1, 1), (260, 346), (720, 1280), (2048, 2048))


@given(st.sampled_from(SIZES), st.integers(0, 2**32), st.integers(1, 80), st.integers(0, 2**40))
def test_nothing_is_lost(size: tuple[int, int], seed: int, n: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    pauses = rng.integers(0, 2 ** rng.integers(0, 36, n))  # from nothing to a day
    x, y, p = (rng.integers(0, high, n) for high in (size[1], size[0], 2))
    events = Events(start + np.cumsum(pauses), x.astype("u2"), y.astype("u2"), p.astype("u1"), size)
    packing = Packing(size)
    packed = packing.pack(events)
    again = packing.unpack(packed)
    assert packed.events.dtype == np.uint32
    assert len(packed.gaps) == np.count_nonzero(np.diff(events.t) > packing.longest)
    for field in ("t", "x", "y", "p"):
        np.testing.assert_array_equal(getattr(again, field), getattr(events, field))
        assert getattr(again, field).dtype == getattr(events, field).dtype


@pytest.mark.parametrize(("size", "longest"), [((128, 128), 131_071), ((34, 34), 1_048_575), ((720, 1280), 2_047)])
def test_the_longest_pause(size: tuple[int, int], longest: int) -> None:
    assert Packing(size).longest == longest
