"""Windows of a stream are those of the recording, however it comes in; a pipe gives what the file holds."""

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from event_files import random_events
from hypothesis import given
from hypothesis import strategies as st

from eisnn.data import DataError
from eisnn.data.events import Events
from eisnn.data.events.prophesee import encode_dat
from eisnn.data.events.stream import from_pipe, windows

SIZE = (30, 40)


def recording(seed: int = 0, n: int = 500) -> Events:
    return random_events(np.random.default_rng(seed), n, SIZE)


def pieces(events: Events, edges: list[int]) -> Iterator[Events]:
    for begin, end in zip([0, *edges], [*edges, len(events)], strict=True):
        yield events[begin:end]


@given(st.lists(st.integers(0, 500), max_size=10), st.integers(300, 20_000))
def test_windows_do_not_depend_on_how_the_stream_comes(edges: list[int], duration: int) -> None:
    events = recording()
    found = list(windows(pieces(events, sorted(edges)), duration))
    begin = events.t[0] + duration * np.arange(len(found))
    for k, window in enumerate(found):
        expected = events[(events.t >= begin[k]) & (events.t < begin[k] + duration)]
        for field in ("t", "x", "y", "p"):
            np.testing.assert_array_equal(getattr(window, field), getattr(expected, field))
    assert len(found[-1])
    assert sum(map(len, found)) == len(events)


def test_windows_without_events_come_as_well() -> None:
    events = recording(n=2)
    events.t[:] = [5, 5 + 3 * 100 + 1]
    assert [len(window) for window in windows([events], 100)] == [1, 0, 0, 1]


def test_events_across_pieces_are_sorted_and_late_ones_not_lost() -> None:
    events = recording(n=4)
    first, second = events[:2], events[2:]
    first.t[:], second.t[:] = [0, 90], [80, 210]
    assert [window.t.tolist() for window in windows([first, second], 100)] == [[0, 80, 90], [], [210]]
    first.t[:], second.t[:] = [0, 150], [80, 160]  # the window until 100 is gone when the event at 80 comes
    assert [window.t.tolist() for window in windows([first, second], 100)] == [[0], [80, 150, 160]]


def test_windows_need_a_duration() -> None:
    with pytest.raises(ValueError, match="0 us, expected at least 1"):
        list(windows([recording()], 0))


def pipe_of(content: bytes, pace: int) -> io.BufferedReader:
    """A real pipe, written by a thread, some bytes at a time."""
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb", buffering=0) as out:
            for begin in range(0, len(content), pace):
                out.write(content[begin : begin + pace])

    threading.Thread(target=write, daemon=True).start()
    return open(reader, "rb")


@pytest.mark.parametrize("pace", [1, 7, 100, 100_000])
def test_a_pipe_gives_what_the_file_holds(pace: int) -> None:
    events = recording(n=300)
    with pipe_of(encode_dat(events), pace) as pipe:
        found = list(from_pipe(pipe))
    for field in ("t", "x", "y", "p"):
        joined = np.concatenate([getattr(chunk, field) for chunk in found])
        np.testing.assert_array_equal(joined, getattr(events, field))
    assert {chunk.size for chunk in found} == {SIZE}


def test_a_pipe_whose_counter_runs_over() -> None:
    events = recording(n=100)
    late = replace(events, t=events.t + (1 << 32) - 5000)
    content = encode_dat(replace(events, t=late.t % (1 << 32)))
    with pipe_of(content, 16) as pipe:
        found = list(from_pipe(pipe))
    np.testing.assert_array_equal(np.concatenate([chunk.t for chunk in found]), late.t)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encode_dat(recording())[:-3], "ends inside an event, after 5 bytes"),
        (b"% Version 2\n% end\n\x0c\x08", "ends without events"),
        (b"% Version 2\n% end\n\x0c\x08" + b"\1" * 16, "does not say how large its sensor is"),
        (b"no events, but some text" * 10, "carries no DAT.* begins with b'no events"),
        (b"", "carries no DAT"),
    ],
)
def test_pipes_of_something_else(content: bytes, message: str) -> None:
    with pipe_of(content, 50) as pipe, pytest.raises(DataError, match=message):
        list(from_pipe(pipe))
