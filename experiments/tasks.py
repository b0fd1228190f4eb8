"""Cognitive tasks: a cortical circuit beside its twin without Dale's law, what they choose, and what silencing costs.

Three tasks of NeuroGym by the recipes (`eisnn list`). After training each network is shown the test trials again:
accuracy by difficulty beside an observer who sums the evidence, psychometric functions, and PV or SST cells silenced
in a period.

    nice -n 10 python experiments/tasks.py --output experiments/results/tasks     # three seeds: 18 runs of minutes
    python experiments/tasks.py --output experiments/results/tasks --table        # tell of those that are there
"""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from study import begun, budgeted, parser, result_file, run_folder, run_script, tell, train
from telling import Row
from torch import Tensor

from eisnn.analysis import choice_probability, fit_psychometric, fraction_by, psth, record, time_course
from eisnn.analysis import figures as fig
from eisnn.cortex import Stimulus, stimulate
from eisnn.data import Loader
from eisnn.data.tasks import Trials
from eisnn.data.tasks.neurogym import TASKS
from eisnn.interop import load_trained
from eisnn.models import SpikingNetwork
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

LAYER = "layers.0"
SILENCED = {
    "perceptual-decision": ("stimulus",),
    "context-decision": ("stimulus", "delay"),
    "delayed-match": ("sample", "delay", "test"),
}


def rows() -> list[Row]:
    """Each twin is compared with the circuit of its task."""
    made = []
    for task in TASKS:
        made.append(Row(task, recipe(task), versus=task))
        made.append(Row(f"{task}, unconstrained", recipe(f"{task}-unconstrained"), versus=task))
    return made


def observer(task: str, split: Trials) -> Tensor | None:
    """Choices `[N]` of who sums the evidence over the stimulus, the best that the noise of a decision allows; None for
    another task."""
    if task == "delayed-match":
        return None
    on, off = split.inputs.chunk(2, 2)
    seen = ((on - off) * split.during("stimulus")[..., None]).sum(1)  # [N, observations]
    first = 1 if task == "perceptual-decision" else 1 + 2 * split.conditions["context"].long()
    first = torch.as_tensor(first).expand(len(split))
    one, other = (seen.gather(1, (first + k)[:, None])[:, 0] for k in (0, 1))
    return (other > one).long()


@torch.no_grad()
def answers(model: SpikingNetwork, frames: Tensor, stimuli: dict[str, Stimulus] | None = None) -> Tensor:
    """Choices `[N]`."""
    with stimulate(model, {LAYER: stimuli} if stimuli else {}):
        return model(frames).argmax(-1)


def look(task: str, model: SpikingNetwork, split: Trials) -> dict[str, Any]:
    """Everything that is told of one trained network."""
    frames = next(Loader(split, len(split)).epoch()).images
    levels, labels = TASKS[task].levels(split), split.labels
    chosen = answers(model, frames)
    right = (chosen == labels).double()
    by = fraction_by(levels, right)
    found: dict[str, Any] = {
        "accuracy": 100 * float(right.mean()),
        "levels": by.levels.tolist(),
        "accuracy_by_level": (100 * by.fractions).tolist(),
        "trials_by_level": by.trials.tolist(),
    }
    if (best := observer(task, split)) is not None:
        evidence = torch.where(labels == 1, levels, -levels)
        curve, fit = fraction_by(evidence, chosen), fit_psychometric(evidence, chosen)
        found |= {
            "observer": 100 * float((best == labels).double().mean()),
            "observer_by_level": (100 * fraction_by(levels, (best == labels).double()).fractions).tolist(),
            "agreement_with_observer": 100 * float((best == chosen).double().mean()),
            "psychometric": {"evidence": curve.levels.tolist(), "second": curve.fractions.tolist(), **vars(fit)},
        }
    with torch.no_grad(), record(model, LAYER, "spikes") as seen:
        model(frames)
    spikes = seen[LAYER]["spikes"].transpose(0, 1)  # [N, T, n]
    decision = split.during("decision")[..., None]
    telling = choice_probability((spikes * decision).sum(1), chosen) if len(chosen.unique()) > 1 else torch.zeros(0)
    found["rate_hz"] = float(spikes.mean()) * 1000 / split.dt
    found["choice_selective_cells"] = int(((telling - 0.5).abs() > 0.25).sum())
    few = slice(0, 250)  # step by step takes long
    for period in SILENCED[task]:
        during = split.during(period)[few].T[..., None]  # [T, B, 1]
        for kind in ("PV", "SST"):
            for factor in (0.0, 0.5):
                silenced = Stimulus(factor=torch.where(during, factor, 1.0))
                kept = answers(model, frames[:, few], {kind: silenced}) == labels[few]
                found.setdefault("silenced", {})[f"{kind} x {factor:g} in {period}"] = 100 * float(kept.double().mean())
    return found


def inside(args: Any) -> None:
    """`look` at every network that is there, into inside.json; and draw it."""
    found: dict[str, Any] = {}
    for row in rows():
        assert row.config is not None
        task = row.config.data.dataset
        for seed in range(args.seeds):
            config = budgeted(row.config, args).changed(seed=seed)
            if not (result_file(row.name, seed, args).exists() and begun(row.name, config, args)):
                continue
            trained = load_trained(run_folder(row.name, seed, args))
            assert isinstance(trained.dataset.test, Trials)
            found.setdefault(row.name, {})[seed] = look(task, trained.model.eval(), trained.dataset.test)
    write_result(args.output / "inside.json", {**provenance(), "rows": found})
    picture(found, args)


def activity(file: Path, args: Any) -> None:
    """Activity over trials of the cortical network of each task, seed 0, by kind of cell and by what was right."""
    figure = Figure(figsize=(9.5, 6.5), layout="constrained")
    for row, task in zip(figure.subplots(len(TASKS), 3), TASKS, strict=True):
        trained = load_trained(run_folder(task, 0, args))
        split = trained.dataset.test
        assert isinstance(split, Trials)
        with torch.no_grad(), record(trained.model.eval(), LAYER, ["spikes", "s_PV", "s_SST"]) as recorded:
            trained.model(next(Loader(split, len(split)).epoch()).images)
        seen, odd = recorded[LAYER], torch.arange(len(split)) % 2 == 1
        counts = (seen["spikes"].transpose(0, 1) * split.during("decision")[..., None]).sum(1)
        prefer = choice_probability(counts[odd], split.labels[odd]) > 0.5  # decided on trials that are not drawn
        cells = psth(seen["spikes"][:, ~odd][:, :, prefer], split.dt, split.dt, split.labels[~odd], smooth=split.dt)
        courses = {f"E cells for {TASKS[task].choices[1]!r} (spikes/s)": cells}
        for kind in ("PV", "SST"):
            courses[f"{kind} cells (output)"] = time_course(seen[f"s_{kind}"], split.dt, split.dt, split.labels)
        for axes, (title, course) in zip(row, courses.items(), strict=True):
            of_each = zip(TASKS[task].choices, course.values.mean(-1).tolist(), strict=True)
            lines = {choice: fig.Curve(course.times.tolist(), mean, points=False) for choice, mean in of_each}
            fig.responses(axes, lines, "time (ms)", "")
            axes.set_title(f"{task}: {title}", fontsize="x-small")
        row[0].legend(frameon=False, fontsize="x-small")
    figure.savefig(file, dpi=130)


def picture(found: dict[str, dict[int, dict[str, Any]]], args: Any) -> None:
    """Accuracy by difficulty, psychometric functions, and what silencing costs: means over seeds, bands of one standard
    deviation."""
    figure = Figure(figsize=(9.5, 8), layout="constrained")
    for row, task in zip(figure.subplots(len(TASKS), 3), TASKS, strict=True):
        circuit, twin = (list(found.get(name, {}).values()) for name in (task, f"{task}, unconstrained"))
        if not circuit:
            continue
        by_level = {"Dale's law": circuit, "unconstrained": twin}
        lines = {name: _curve(of, "levels", "accuracy_by_level") for name, of in by_level.items() if of}
        if "observer" in circuit[0]:
            lines["sums the evidence"] = _curve(circuit, "levels", "observer_by_level")
        fig.responses(row[0], lines, TASKS[task].level, "right (%)", 50)
        row[0].set_title(task, fontsize="small")
        row[0].legend(frameon=False, fontsize="x-small")
        if "psychometric" in circuit[0]:
            curves = {name: [seen["psychometric"] for seen in of] for name, of in by_level.items() if of}
            lines = {name: _curve(of, "evidence", "second") for name, of in curves.items()}
            fig.responses(row[1], lines, f"evidence, {TASKS[task].level}", f"chose {TASKS[task].choices[1]!r}", 0.5)
        else:
            row[1].set_axis_off()
        names = list(circuit[0]["silenced"])
        means = [torch.tensor([seen["silenced"][name] for seen in circuit]).mean() for name in names]
        row[2].barh(names, means, color=[fig.BLUE if name.startswith("PV") else fig.ORANGE for name in names])
        row[2].axvline(sum(seen["accuracy"] for seen in circuit) / len(circuit), color=fig.GREY, linestyle=":")
        row[2].invert_yaxis()
        row[2].tick_params("y", labelsize="x-small")
        row[2].set(xlabel="right (%)", xlim=(0, 100))
        fig.bare(row[2])
    figure.savefig(args.output / "inside.png", dpi=130)
    activity(args.output / "activity.png", args)


def _curve(seen: list[dict[str, Any]], levels: str, values: str) -> fig.Curve:
    """Mean and standard deviation over networks."""
    each = torch.tensor([one[values] for one in seen])
    spread = each.std(0).tolist() if len(each) > 1 else ()
    return fig.Curve(seen[0][levels], each.mean(0).tolist(), spread)


def main() -> None:
    args = parser(__doc__, seeds=3).parse_args()
    for seed in range(0 if args.table else args.seeds):
        for row in rows():
            if row.config is not None and (not args.only or row.name in args.only):
                train(row.name, budgeted(row.config, args), seed, args, keep=True)
                tell(rows(), args)
    print(tell(rows(), args))
    inside(args)


if __name__ == "__main__":
    run_script(main)
