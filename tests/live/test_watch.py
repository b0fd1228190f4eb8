"""A network that watches a stream sees what it would see of the whole sequence at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import random_events

import eisnn
from eisnn.data.events import EventAugmentation, Events
from eisnn.data.events.frames import FrameSettings, batch_of, count_frames
from eisnn.live import watch, windows

STEPS, SIZE = 5, (20, 24)
SETTINGS = FrameSettings(bins="time", scaling="sum")


def recording(seed: int = 0) -> Events:
    """Its duration divides into five equal parts."""
    events = random_events(np.random.default_rng(seed), 3000, SIZE)
    events.t[:] -= events.t[0]
    events.t[-1] += -(events.t[-1] + 1) % STEPS
    return events


def network(circuit: str, **options: object) -> eisnn.models.SpikingNetwork:
    torch.manual_seed(0)
    model = eisnn.create_model(
        "convnet3", num_classes=7, in_channels=2, time_steps=STEPS, width=0.25, circuit=circuit, **options
    )
    frames = count_frames(batch_of([recording(seed) for seed in range(8)], STEPS, SETTINGS))
    if circuit == "ei":
        eisnn.ei_init_(model, frames, generator=torch.Generator().manual_seed(0))
    for _ in range(30):  # running statistics of normalization
        model.train()(frames)
    return model.double().eval()


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize(
    ("circuit", "options"),
    [("ei", {}), ("ei", {"circuit_options": eisnn.nn.PLUS}), ("bn", {}), ("tebn", {}), ("backei", {})],
)
def test_steps_are_those_of_the_batch(circuit: str, options: dict, size: int | None) -> None:
    model, events = network(circuit, **options), recording(9)
    frames = EventAugmentation().apply(batch_of([events], STEPS, SETTINGS), {}, size).double()
    with torch.inference_mode():
        expected = model(frames, per_step=True)[:, 0]
    duration = (events.duration + 1) // STEPS
    steps = list(watch(model, windows([events[:700], events[700:]], duration), size=size, settings=SETTINGS))
    assert len(steps) == STEPS
    assert sum(len(step.events) for step in steps) == len(events)
    for k, step in enumerate(steps):
        torch.testing.assert_close(step.frame, frames[k, 0])
        torch.testing.assert_close(step.logits, expected[k], rtol=0, atol=1e-12)
        torch.testing.assert_close(step.mean, expected[: k + 1].mean(0), rtol=0, atol=1e-12)
    torch.testing.assert_close(steps[-1].mean, model(frames)[0].detach(), rtol=0, atol=1e-12)
    assert expected.std(0).max() > 1e-3  # the steps differ
    assert model.time_steps == STEPS


def test_a_stream_goes_on_beyond_the_steps_of_training() -> None:
    """The mean is that of the last T steps, and the state goes on."""
    model = network("ei")
    longer = network("ei")
    longer.time_steps = 2 * STEPS
    events = recording(9)
    duration = (events.duration + 1) // STEPS // 2
    steps = list(watch(model, windows([events], duration), settings=SETTINGS))[: 2 * STEPS]
    frames = torch.stack([step.frame for step in steps])[:, None]
    with torch.inference_mode():
        expected = longer(frames, per_step=True)[:, 0]
    torch.testing.assert_close(torch.stack([step.logits for step in steps]), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(steps[-1].mean, expected[-STEPS:].mean(0), rtol=0, atol=1e-12)


def test_windows_without_events_are_steps_too() -> None:
    events = recording()
    first = events[:500]
    pause = Events(first.t[:1] + 10_000_000, first.x[:1], first.y[:1], first.p[:1], SIZE)
    steps = list(watch(network("ei"), windows([first, pause], 1_000_000), settings=SETTINGS))
    assert len(steps) == 11
    assert [len(step.events) for step in steps[1:10]] == [0] * 9
    assert torch.stack([step.logits for step in steps]).isfinite().all()


def test_every_step_says_how_long_it_took(tmp_path: Path) -> None:
    for step in watch(network("bn"), windows([recording()], 50_000)):
        assert 0 < step.seconds < 10
        assert step.rate == len(step.events) / step.seconds
