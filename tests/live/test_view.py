"""The terminal view: pixels in their place and colour, the answer, and what was measured."""

import io
import time

import numpy as np
import pytest
import torch
from event_files import random_events
from rich.console import Console

from eisnn.data.events import Events
from eisnn.data.events.draw import BACKGROUND, OFF, ON
from eisnn.live import Step
from eisnn.live.view import View, noted, pace, picture


def test_a_frame_in_characters() -> None:
    """Two pixels one above the other in a character: the upper in the foreground, the lower in the background."""
    frame = torch.zeros(2, 5, 4)
    frame[1, 0, 3] = frame[0, 1, 0] = 3
    text = picture(frame)
    rows = text.plain.splitlines()
    assert rows == ["▀" * 4] * 3  # an odd last row has nothing below
    styles = {span.start: span.style for span in text.spans}
    upper = {at: style.color.get_truecolor() for at, style in styles.items()}
    lower = {at: style.bgcolor.get_truecolor() for at, style in styles.items()}
    assert upper[3] == ON
    assert lower[0] == OFF
    assert {tuple(colour) for at, colour in upper.items() if at != 3} == {BACKGROUND}


def test_a_large_frame_is_summed() -> None:
    frame = torch.zeros(2, 128, 128)
    frame[1, 64:66, 64:66] = 1
    rows = picture(frame).plain.splitlines()
    assert len(rows[0]) == 42
    assert len(rows) == 21


def test_a_frame_without_events() -> None:
    assert picture(torch.zeros(2, 4, 4)).plain.splitlines() == ["▀" * 4] * 2


def step(best: int) -> Step:
    logits = torch.zeros(3)
    logits[best] = 5
    events = random_events(np.random.default_rng(0), 50, (4, 4))
    return Step(events, torch.zeros(2, 4, 4), logits, logits, 0.01)


def test_the_view_says_what_the_network_says() -> None:
    view, out = View(("cat", "dog", "elk")), io.StringIO()
    console = Console(file=out, width=100)
    console.print(view.drawn("recording 5", step(1)))
    view.end()
    console.print(view.drawn("recording 6", step(2)))
    said = out.getvalue()
    for words in ("recording 5", "dog ", "99%", "50 events in 10.0 ms: 5,000 events a second", "so far: dog"):
        assert words in said
    assert view.summary() == "2 steps: median 10.0 ms, 95 % within 10.0 ms, 5,000 events a second"


def test_another_sensor_than_that_of_the_training_is_said() -> None:
    window = Events(np.array([0]), *(np.zeros(1, kind) for kind in ("u2", "u2", "u1")), (240, 320))
    assert list(noted([window, window], (240, 320))) == [window, window]
    with pytest.warns(UserWarning, match="of 240 x 320 pixels, the network was trained on 34 x 34"):
        assert len(list(noted([window, window], (34, 34)))) == 2


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 0.2), (4.0, 0.05), (0.0, 0.0)])
def test_windows_come_at_their_time(speed: float, expected: float) -> None:
    def window(t: int) -> Events:
        return Events(np.array([t]), *(np.zeros(1, kind) for kind in ("u2", "u2", "u1")), (1, 1))

    start = time.monotonic()
    assert len(list(pace([window(0), window(100_000), window(200_000)], speed))) == 3
    assert expected <= time.monotonic() - start < expected + 0.1
