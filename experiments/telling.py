"""What is told of the runs of an experiment: what became of each, means, intervals, a table and a picture.

A run that collapses or whose loss is no longer finite is a result like any other, with the epoch in which it happened.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eisnn.analysis.figures import COLORS, GREY
from eisnn.train import TrainConfig

Result = dict[str, Any]
# 97.5 % quantiles of Student's t for 1 to 9 degrees of freedom; more take the last, which is a little too wide.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Row:
    """One configuration of a table.

    Args:
        name: what is told apart.
        config: at the full recipe; the budget changes it. None is a row that cannot be run here.
        published: what the paper reports, as it reports it.
        note: said beside the row; of one that cannot be run, why.
        versus: name of the row that it is compared with, if not the first.
        within: gives a context in which it is trained, such as layers that do something else.
    """

    name: str
    config: TrainConfig | None
    published: str = ""
    note: str = ""
    versus: str = ""
    within: Callable[[], AbstractContextManager[Any]] | None = None


def guessing(result: Result) -> float:
    """Accuracy (%) of guessing."""
    return 100 / result["classes"]


def chance_level(result: Result) -> float:
    """Accuracy (%) that guessing may reach: three standard errors of so many test images above its mean."""
    chance = guessing(result)
    return chance + 3 * sqrt(chance * (100 - chance) / result["test_images"])


def outcome(result: Result) -> str:
    """Whether the run learned, and if not, in which epoch it was lost."""
    curve, level = result["accuracy"], chance_level(result)
    learned = max((k for k, accuracy in enumerate(curve, 1) if accuracy > level), default=0)
    if result["lost"]:
        silent = result["lost"].startswith("E-I Init")
        return "silent from the start" if silent else f"not finite in epoch {len(result.get('train_loss', curve)) + 1}"
    if learned == 0:
        return "never learned"
    return "learned" if learned == len(curve) else f"collapsed in epoch {evaluated(result)[learned - 1] + 1}"


def evaluated(result: Result) -> list[int]:
    """After which epochs the values of its curve were measured."""
    config, curve = result.get("config", {}), result["accuracy"]
    every = config.get("evaluate_epochs", 1)
    last = len(result["train_loss"]) if "train_loss" in result else config.get("epochs", len(curve))
    return [min(k * every, last) for k in range(1, len(curve) + 1)]


def final(result: Result) -> float:
    """Accuracy (%) after the last epoch; of a run that was lost, that of guessing."""
    return result["accuracy"][-1] if result["accuracy"] and not result["lost"] else guessing(result)


def difference(ours: Sequence[Result], reference: Sequence[Result]) -> dict[str, float] | None:
    """Mean difference of accuracies, paired by seed, with its 95 % interval (Student's t); None for fewer than 2."""
    others = {result["seed"]: final(result) for result in reference}
    return interval([final(result) - others[result["seed"]] for result in ours if result["seed"] in others])


def interval(values: Sequence[float]) -> dict[str, float] | None:
    """Mean with its 95 % interval (Student's t); None for fewer than 2."""
    if len(values) < 2:
        return None
    mean, half = statistics.mean(values), STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
    half *= statistics.stdev(values) / sqrt(len(values))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarize(row: Row, results: Sequence[Result], reference: Sequence[Result]) -> dict[str, Any]:
    """What is told of one row."""
    last = [final(result) for result in results]
    best = [max(result["accuracy"], default=guessing(result)) for result in results]
    averaged = [result["average_accuracy"][-1] for result in results if result.get("average_accuracy")]
    return {
        "row": row.name,
        "published": row.published,
        "note": row.note,
        "n": len(results),
        "seeds": [result["seed"] for result in results],
        "accuracy": last,
        "mean": statistics.mean(last) if last else None,
        "standard_deviation": statistics.stdev(last) if len(last) > 1 else None,
        "best": statistics.mean(best) if best else None,
        "averaged": statistics.mean(averaged) if averaged else None,
        "difference": difference(results, reference) if results is not reference else None,
        "outcomes": [outcome(result) for result in results],
    }


def cell(values: Sequence[float | None]) -> str:
    """`mean ± standard deviation` of a summary."""
    mean, spread = values
    return "" if mean is None else f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The table; an outcome is given for each seed unless all are the same."""
    lines = [
        "| | published, % | accuracy after the last epoch, % | n | best epoch, % | difference, points (95 %) | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in summaries:
        gap = s["difference"]
        interval = "" if gap is None else f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"
        outcomes = s["outcomes"] if len(set(s["outcomes"])) > 1 else s["outcomes"][:1]
        told = "; ".join(outcomes) or "not run"
        told += f"; averaged weights {s['averaged']:.1f} %" if s["averaged"] is not None else ""
        told += f" ({s['note']})" if s["note"] else ""
        best = "" if s["best"] is None else f"{s['best']:.1f}"
        accuracy = cell((s["mean"], s["standard_deviation"]))
        lines.append(f"| {s['row']} | {s['published']} | {accuracy} | {s['n'] or ''} | {best} | {interval} | {told} |")
    return "\n".join(lines)


def draw(file: Path, results: Mapping[str, Sequence[Result]]) -> None:
    """Accuracy after each epoch by row: the mean over seeds, and each seed as a thin line."""
    shown = {name: runs for name, runs in results.items() if any(run["accuracy"] for run in runs)}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for k, (name, runs) in enumerate(shown.items()):
        style = {"color": COLORS[k % len(COLORS)], "linestyle": ("-", "--", ":", "-.")[k // len(COLORS) % 4]}
        runs = [run for run in runs if run["accuracy"]]
        for run in runs:
            axes.plot(evaluated(run), run["accuracy"], **style, linewidth=0.6, alpha=0.5)
        means = [statistics.mean(values) for values in zip(*(run["accuracy"] for run in runs), strict=False)]
        axes.plot(evaluated(runs[0])[: len(means)], means, **style, marker="o", markersize=2.5, label=name)
    for chance in {guessing(run) for runs in results.values() for run in runs}:
        axes.axhline(chance, color=GREY, linewidth=0.8, label="guessing")
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, None))
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
