"""Trials of a task: what the network chooses, and what its cells do meanwhile."""

from collections.abc import Mapping

import torch
from torch import Tensor

from eisnn.analysis import choice_probability, fit_psychometric, fraction_by, psth, record, time_course
from eisnn.analysis import figures as fig
from eisnn.analysis.layers import available
from eisnn.data.tasks import Trials
from eisnn.data.tasks.neurogym import TASKS
from eisnn.report.opened import Opened
from eisnn.report.page import Figure, Key, Panel, Section

COLORS = fig.BLUE, fig.ORANGE
FEWEST = 4  # levels of evidence, for a psychometric function


def trials(opened: Opened) -> Section:
    """Accuracy by difficulty, psychometric function, and activity by choice and kind of cell."""
    shown, names = opened.shown, opened.dataset.classes
    assert isinstance(shown, Trials)
    with torch.no_grad():
        chosen = opened.model(opened.images).argmax(-1)
    right = chosen == opened.labels
    text = f"{len(right)} {opened.split}, {float(right.double().mean()):.0%} of them right."
    return Section("Trials", text, [_choices(opened.dataset.name, shown, chosen), *_activity(opened, shown, names)])


def _choices(name: str, shown: Trials, chosen: Tensor) -> Figure:
    task = TASKS[name]
    levels, right = task.levels(shown), (chosen == shown.labels).double()
    by = fraction_by(levels, right)
    percent = fig.Curve(by.levels.tolist(), (100 * by.fractions).tolist(), (100 * by.errors).tolist())
    chance = 100 / len(task.choices)
    alt = ", ".join(f"{level:g}: {value:.0f} %" for level, value in zip(percent.doses, percent.means, strict=True))
    label = task.level or "all trials"
    panels = [Panel(fig.svg(fig.responses, {"": percent}, label, "right (%)", chance), alt, "Accuracy by difficulty")]
    reading = "Bands are one standard error; the dotted line is guessing."
    evidence = torch.where(shown.labels == 1, levels, -levels)
    if task.evidence and len(task.choices) == 2 and len(evidence.unique()) >= FEWEST:
        points, fit = fraction_by(evidence, chosen), fit_psychometric(evidence, chosen)
        line = torch.linspace(float(evidence.min()), float(evidence.max()), 100)
        measured = fig.Curve(points.levels.tolist(), points.fractions.tolist(), points.errors.tolist())
        curves = {"measured": measured, "fit": fig.Curve(line.tolist(), fit(line).tolist(), points=False)}
        about = f"bias {fit.bias:.2g}, threshold {fit.threshold:.2g}, lapse {fit.lapse:.2g}"
        svg = fig.svg(
            fig.responses, curves, f"evidence for {task.choices[1]}: {label}", f"chose {task.choices[1]}", 0.5
        )
        panels.append(Panel(svg, f"Psychometric function: {about}", "Psychometric function"))
        reading += f" The fit (dashed) has {about}: it is one half at the bias, and 84 % a threshold above it."
    return Figure("Choices", panels, reading)


def _activity(opened: Opened, shown: Trials, names: tuple[str, ...]) -> list[Figure]:
    if opened.unseen:
        return []
    layer = opened.drawn[-1]
    module = dict(opened.model.named_modules())[layer]
    kinds = [quantity for quantity in available(module) if quantity.startswith("s_")]
    with torch.no_grad(), record(opened.model, layer, ["spikes", *kinds]) as recorded:
        opened.model(opened.images)
    seen = recorded[layer]
    panels = []
    odd = torch.arange(len(shown)) % 2 == 1  # these tell which choice a cell prefers, the others are drawn
    preferred = _preferring(seen["spikes"][:, odd], shown[odd])
    for which, cells in preferred.items():
        course = psth(seen["spikes"][:, ~odd][:, :, cells], shown.dt, shown.dt, shown.labels[~odd])
        heading = f"E cells for {names[which]} ({int(cells.sum())})"
        panels.append(_course(course.times, course.values.mean(-1), course.conditions, "spikes/s", heading))
    for kind in kinds:
        course = time_course(seen[kind], shown.dt, shown.dt, shown.labels)
        heading = f"{kind.removeprefix('s_')} cells"
        panels.append(_course(course.times, course.values.mean(-1), course.conditions, "output", heading))
    earliest = {period: int(bounds[:, 0].min()) * shown.dt for period, bounds in shown.periods.items()}
    starts = ", ".join(f"{period} from {start}" for period, start in earliest.items())
    reading = (
        f"Mean over cells of {layer} and over trials, by what was right. What an E cell prefers was decided on other "
        f"trials. All trials end together; in ms, the earliest: {starts}."
    )
    legend = [Key(name, color, line) for name, color, line in zip(names, COLORS, ("solid", "dashed"), strict=False)]
    return [Figure("Activity over the trial", panels, reading, legend)]


def _preferring(spikes: Tensor, shown: Trials) -> Mapping[int, Tensor]:
    """Masks of the cells that fire more in the decision where 0 is right, and where 1 is."""
    if len(shown.labels.unique()) < 2:
        return {}
    counts = (spikes.transpose(0, 1) * shown.during("decision")[..., None]).sum(1)
    telling = choice_probability(counts, shown.labels)
    cells = {0: telling < 0.5, 1: telling > 0.5}
    return {which: mask for which, mask in cells.items() if mask.any()}


def _course(times: Tensor, values: Tensor, conditions: Tensor, unit: str, heading: str) -> Panel:
    of_each = zip(conditions.tolist(), values.tolist(), strict=True)
    curves = {f"{k}": fig.Curve(times.tolist(), course, points=False) for k, course in of_each}
    most = ", ".join(f"at most {float(v.max()):.3g}" for v in values)
    return Panel(fig.svg(fig.responses, curves, "time (ms)", unit), f"{heading} over time: {most} {unit}", heading)
