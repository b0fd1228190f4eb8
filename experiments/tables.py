"""Makes the tables of the pages from the results that are committed, so that no number is copied by hand.

A page says where a table belongs; what stands between the two marks is replaced:

    <!-- table NAME -->
    <!-- end of table -->

    python experiments/tables.py            # after new results: writes README.md and docs/**.md anew
    python experiments/tables.py --check    # says which pages are not current, and fails if any is not
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attention
import cortex_vision
import cortical_phenomena
import cutout
import depth
import figure6
import gap
import table1
import table2
import table3
from study import slug
from tasks import SILENCED, TASKS
from telling import Result, Row, cell, difference, final, markdown, summarize

from eisnn.interop.shared import CARD, IN_PACKAGE, network_names
from eisnn.train import recipes

ROOT = Path(__file__).parent.parent
RESULTS, BENCHMARKS = ROOT / "experiments" / "results", ROOT / "benchmarks" / "results"
PLUS, TWIN, PAPER = "E-I, exact balance (`-plus`)", "batch-norm twin", "E-I, the paper's method"
MEBIBYTE = 2**20
# Of the paper, but for the transformers; +- over its runs. VGG-8 and VGG-11 on CIFAR-10 are those of its released
# checkpoints.
PUBLISHED = {
    "cifar10-vgg8": "87.03",
    "cifar10-vgg11": "88.43",
    "cifar10-vgg16": "90.80 ± 0.16 (BN 94.29)",
    "cifar10-vgg19": "90.93 ± 0.33 (BN 94.11)",
    "cifar10-resnet18": "92.05 ± 0.11 (BN 95.37)",
    "cifar10-spikformer": "not in the paper (published, BN: 95.41)",
    "cifar10-qkformer": "not in the paper (published, BN: 96.18)",
    "cifar100-vgg16": "64.95 ± 1.14",
    "cifar100-vgg19": "64.31 ± 0.41",
    "tiny-imagenet-resnet18": "50.29",
    "cifar10-dvs-vgg8": "77.30 ± 0.64",
    "cifar10-dvs-vgg11": "77.66 ± 0.48",
    "dvs-gesture-vgg8": "94.86 ± 0.86",
}


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def runs(study: str, row: str) -> list[Result]:
    """The results of a row over seeds, those of its runs or else those of the study's summary."""
    folder = RESULTS / study
    if found := [read(file) for file in sorted(folder.glob(f"{slug(row)}-[0-9].json"))]:
        return found
    told = {summary["row"]: summary for summary in read(folder / f"{study}.json")["rows"]}[row]
    pairs = zip(told["seeds"], told["accuracy"], strict=True)
    return [{"seed": seed, "accuracy": [accuracy], "lost": None} for seed, accuracy in pairs]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    told = [re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(map(str, line))} |") for line in (head, *rows)]
    return "\n".join([told[0], "|" + "---|" * len(head), *told[1:]])


def accuracies(results: Sequence[Result]) -> str:
    return by_seed([final(result) for result in results])


def start_rates() -> str:
    """Accuracy by the firing rate that E-I Init aims at."""
    aims = {"unit variance": "unit variance"} | {f"rate {r}": f"{r} spikes a step" for r in (0.1, 0.15, 0.2)}
    found = {T: [runs("start_rate", f"convnet3, T = {T}, {aim}") for aim in aims] for T in (2, 4)}
    return table(["accuracy, %", *aims.values()], [[f"T = {T}", *map(accuracies, row)] for T, row in found.items()])


def over(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    return cell((statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None))


def by_seed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def spread(results: Sequence[Result]) -> str:
    return over([final(result) for result in results])


def less(results: Sequence[Result], reference: Sequence[Result]) -> str:
    """The difference paired by seed, with its 95 % interval; nothing of a row and itself."""
    gap = None if results == reference else difference(results, reference)
    return "" if gap is None else f"{gap['mean']:+.1f} ({gap['low']:+.1f} to {gap['high']:+.1f})"


def compared(study: str, titles: Mapping[str, str], versus: Mapping[str, str], what: str = "") -> str:
    """Rows of a study by title, less those of `versus` by theirs."""
    head = [what, "accuracy, %", "n", "by seed", *(f"less {title}, points (95 %)" for title in versus)]
    others = [runs(study, row) for row in versus.values()]
    found = {title: runs(study, row) for title, row in titles.items()}
    return table(
        head,
        [
            [title, spread(own), len(own), accuracies(own), *(less(own, other) for other in others)]
            for title, own in found.items()
        ],
    )


def of_study(study: str, rows: Sequence[Row]) -> str:
    """The table that the study itself tells."""
    found = {row.name: runs(study, row.name) if row.config else [] for row in rows}
    return markdown([summarize(row, found[row.name], found[row.versus or rows[0].name]) for row in rows])


def demo() -> str:
    titles = {PAPER: "demo", PLUS: "demo-plus", TWIN: "demo-bn"}
    return compared("demo_seeds", titles, {"the twin": "demo-bn"}, "network")


def accuracy() -> str:
    """The demo and VGG-8 at full width, beside each other."""
    told = {PAPER: ("demo", "paper", "87.03"), PLUS: ("demo-plus", "plus", ""), TWIN: ("demo-bn", "batch norm", "")}
    rows = [
        [title, spread(runs("demo_seeds", small)), spread(runs("full_width_60", f"{large}, vgg8")), published]
        for title, (small, large, published) in told.items()
    ]
    head = ["", "demo: 5,000 small images, 25 epochs, %", "VGG-8, CIFAR-10, 60 epochs, %", "published, 300 epochs, %"]
    counts = [len(runs("demo_seeds", "demo")), len(runs("full_width_60", "plus, vgg8"))]
    return table(head, [*rows, ["*seeds*", *counts, ""]])


def campaign() -> str:
    """Accuracy on test and training images by epoch of 300, of finished runs and of those cut off."""
    titles = {
        "plus": PLUS,
        "paper": PAPER,
        "batch norm": TWIN,
        "batch norm, orthogonal": f"{TWIN}, orthogonalised updates",
    }
    told = (20, 60, 100, 140, 180, 220, 300)
    rows = []
    for method, title in titles.items():
        name = slug(f"vgg8, {method}, 300 epochs")
        for file in sorted((RESULTS / "campaign").rglob(f"{name}-[0-9].json")):
            seen = _by_epoch(read(file))
            cells = [f"{seen[epoch][0]:.1f} ({seen[epoch][1]:.1f})" if epoch in seen else "" for epoch in told]
            rows.append([title, read(file)["seed"], *cells])
    return table(["method", "seed", *map(str, told)], rows)


def quarter_width() -> str:
    """Accuracy by epoch at quarter width, of 20 epochs by each method, and of the long run as far as it got."""
    methods = {
        f"{PAPER}, SGD 0.001": "paper, 0.001",
        f"{PLUS}, orthogonalised 0.02": "plus, 0.02",
        f"{TWIN}, SGD 0.05": "batch norm, 0.05",
        f"{TWIN}, orthogonalised 0.05": "batch norm, orthogonal, 0.05",
    }
    stopped = read(RESULTS / "screening_20_unfinished.json")["runs"]
    found = {}
    for title, name in methods.items():
        file = RESULTS / "screening_20" / f"{slug(name)}-0.json"
        found[title] = 20, _by_epoch(read(file) if file.exists() else stopped[name])
    found[f"{PLUS}, orthogonalised 0.02, stopped"] = 100, _by_epoch(read(RESULTS / "quarter_width_unfinished.json"))
    told = (1, 5, 10, 15, 20, 45)
    rows = [
        [title, planned, *("{:.1f} ({:.1f})".format(*seen[epoch]) if epoch in seen else "" for epoch in told)]
        for title, (planned, seen) in found.items()
    ]
    return table(["network", "epochs planned", *(f"after {epoch}" for epoch in told)], rows)


def _by_epoch(result: Result) -> dict[int, tuple[float, float]]:
    """Test and training accuracy of a result, or of what an unfinished run has shown, by epoch."""
    if "epochs" in result:
        evaluated = [line for line in result["epochs"] if "test_accuracy" in line]
        return {line["epoch"]: (line["test_accuracy"], line["train_accuracy"]) for line in evaluated}
    every = len(result["train_accuracy"]) // len(result["accuracy"])
    return {
        every * (k + 1): (accuracy, result["train_accuracy"][every * (k + 1) - 1])
        for k, accuracy in enumerate(result["accuracy"])
    }


def recordings_of_nmnist() -> str:
    titles = {PAPER: "nmnist-demo", PLUS: "nmnist-demo-plus", TWIN: "nmnist-demo-bn"}
    networks = read(RESULTS / "nmnist_demo" / "nmnist_demo.json")["networks"]
    rows = []
    for title, name in titles.items():
        seeds, folds = (networks[name][part] for part in ("seeds", "folds"))
        told = [cell((part["mean"], part["standard_deviation"])) for part in (seeds, folds)]
        rows.append([title, *told, ", ".join(f"{value:.1f}" for value in folds["accuracy"])])
    return table(["network", "100 test recordings, %, 3 seeds", "5 folds of all, %", "by fold"], rows)


def simulated_recordings() -> str:
    networks = read(RESULTS / "simulated_events" / "simulated_events.json")["networks"]
    titles = {"paper": PAPER, "plus": PLUS, "bn": TWIN}
    return table(["network", "accuracy, %", "n"], [[t, f"{networks[k]['accuracy']:.1f}", 1] for k, t in titles.items()])


def full_width() -> str:
    networks = {"vgg8": "VGG-8", "vgg16": "VGG-16", "resnet18": "ResNet-18"}
    titles = {
        "paper": PAPER,
        "plus": PLUS,
        "batch norm": TWIN,
        "batch norm, orthogonal": f"{TWIN}, orthogonalised updates",
    }
    rows = []
    for folder in ("full_width_60", "full_width_24"):
        for summary in read(RESULTS / folder / f"{folder}.json")["rows"]:
            method, network = summary["row"].rsplit(", ", 1)
            if results := runs(folder, summary["row"]) if summary["n"] else []:
                trained = statistics.mean(result["train_accuracy"][-1] for result in results)
                epochs = len(results[0]["train_accuracy"])
                told = networks[network], titles.get(method, method), epochs, spread(results), f"{trained:.1f}"
                rows.append([*told, len(results), summary["published"]])
    head = ["network", "method", "epochs", "test accuracy, %", "training accuracy, %", "n", "published, 300 epochs"]
    return table(head, rows)


def on_a_cpu() -> str:
    lines = (RESULTS / "cifar10_vgg8" / "ei" / "metrics.jsonl").read_text().splitlines()
    epochs = [line for line in map(json.loads, lines) if line["kind"] == "epoch"]
    seconds = statistics.median(line["seconds"] for line in epochs)
    own = ["E-I", len(epochs), f"{epochs[-1]['test_accuracy']:.1f}", 1, f"{seconds:.0f} (median)"]
    head = ["network", "epochs", "test accuracy, %", "n", "seconds an epoch"]
    return table(head, [own, ["E-I, published", 300, "87.03", "", ""]])


def first_gradients() -> str:
    """|dW_EE| of the first layer at the start, by ablation (Figure 5)."""
    names = ("the whole method", *(f"epsilon-1e-{k}" for k in (8, 7, 6, 5, 4, 3, 2)), "no-sign-constraint")
    folders = {"quarter width, batch 64": "figure5_quarter_width", "published width, batch 128": "figure5"}
    found = [read(RESULTS / folder / f"{folder}.json")["ablations"] for folder in folders.values()]
    head = ["", *(f"[{title}](../../experiments/results/{folder}/{folder}.md)" for title, folder in folders.items())]
    return table(
        head,
        [[name, *(f"{norms[name]['layers.0']['weight_ee']:.2g}" for norms in found)] for name in names],
    )


def choice() -> str:
    """The screening on held-out images."""
    rates = {
        PAPER: ("paper, ", ("0.002", "0.005")),
        PLUS: ("plus, ", ("0.02",)),
        "E-I, exact balance by SGD": ("exact balance, ", ("0.02", "0.05")),
        TWIN: ("batch norm, ", ("0.05", "0.1")),
        f"{TWIN}, orthogonalised updates": ("batch norm, orthogonal, ", ("0.02", "0.05")),
    }
    return table(
        ["method", "learning rate", "accuracy, % (n = 1)"],
        [
            [title, ", ".join(of), ", ".join(accuracies(runs("screening", name + rate)) for rate in of)]
            for title, (name, of) in rates.items()
        ],
    )


def changes() -> str:
    """One change at a time, on held-out images."""
    titles = {
        "exact balance by SGD": ("exact balance, 0.02", "exact balance, 0.05"),
        "with adaptive clipping 0.03": ("exact balance, adaptive clipping 0.03",),
        "with balance tap by tap": ("exact balance, tapwise",),
        "with both": ("exact balance, tapwise, adaptive clipping 0.03",),
        "with orthogonalised updates": ("exact balance, orthogonal 0.02", "exact balance, orthogonal 0.05"),
        "with orthogonalised updates and balance tap by tap": ("exact balance, tapwise, orthogonal 0.02",),
        "the same and even gradients: `-plus`": ("plus, 0.02",),
        "`-plus` again, for its averaged weights (0.99 a step)": ("plus, average",),
        "`-plus` with tightness 3, 10": ("plus, tightness 3", "plus, tightness 10"),
        "`-plus` with CutMix and Mixup": ("plus, CutMix and Mixup",),
        "`-plus` with TrivialAugment": ("plus, TrivialAugment",),
        "`-plus` with a teacher, the batch-norm twin with SGD (59.0)": ("plus, teacher",),
        "exact balance with Adam, AdamW": ("exact balance, Adam 0.003", "exact balance, AdamW 0.003"),
        "with exponentiated gradient": ("exact balance, exponentiated gradient",),
        "with label smoothing 0.1": ("exact balance, label smoothing 0.1",),
        "with the TET loss": ("exact balance, TET",),
        "the paper's method": ("paper, 0.005",),
        "with orthogonalised updates, once more": ("paper, orthogonal",),
    }
    rows = []
    for title, names in titles.items():
        found = [runs("screening", name)[0] for name in names]
        rates = ", ".join(str(result["config"]["lr"]) for result in found)
        rows.append([title.removesuffix(", once more"), rates, accuracies(found)])
    return table(["", "learning rate", "accuracy, % (n = 1)"], rows)


def report() -> str:
    """The screening's report on the test images."""
    titles = {
        PAPER: "paper, 0.005",
        PLUS: "plus, 0.02",
        TWIN: "batch norm, 0.05",
        f"{TWIN}, orthogonalised updates": "batch norm, orthogonal, 0.05",
    }
    versus = {"the twin": titles[TWIN], "the twin, orthogonalised": "batch norm, orthogonal, 0.05"}
    return compared("screening_report", titles, versus, "method")


def parts() -> str:
    """What each part of -plus is worth, on the test images."""
    titles = {
        "`-plus`": "plus, 0.02",
        "one divisive current for each neuron (not pooled)": "plus, one current for each neuron",
        "without semisaturation": "plus without semisaturation",
        "without unit variance at the start": "plus without unit variance",
        "by SGD, rate 0.05": "plus, SGD",
        "tightness 10": "plus, tightness 10",
    }
    return compared("screening_report", titles, {"`-plus`": "plus, 0.02"})


def optimizers() -> str:
    """The paper's circuit and the twin with other optimizers, rates and decay, on the test images."""
    titles = {
        "the paper's circuit, SGD 0.005": "paper, 0.005",
        **{
            f"orthogonalised updates, rate {rate}": f"paper, orthogonal{'' if rate == '0.005' else f' {rate}'}"
            for rate in ("0.002", "0.005", "0.01", "0.02")
        },
    }
    twins = {
        "batch-norm twin, SGD 0.05, decay 1e-4": "batch norm, 0.05",
        "decay 5e-4": "batch norm, decay 5e-4",
        "orthogonalised updates, rate 0.05, decay 1e-4": "batch norm, orthogonal, 0.05",
        "`-plus` by SGD 0.05, decay 5e-4": "plus, SGD",
    }
    study = "screening_report"
    paper = compared(study, titles, {"the first row": titles["the paper's circuit, SGD 0.005"]}, "the paper's circuit")
    versus = {"the first row": "batch norm, 0.05", "the second": "batch norm, decay 5e-4"}
    twin = compared(study, twins, versus, "the twin, and `-plus`")
    return f"{paper}\n\n{twin}"


def towards_the_twin() -> str:
    """The steps between -plus and its twin."""
    reference, rows = runs("gap", "plus"), []
    for name in gap.STEPS:
        if results := _there("gap", name):
            trained = ", ".join(f"{result['train_accuracy'][-1]:.1f}" for result in results)
            rows.append([name.replace("plus", "`-plus`", 1), accuracies(results), trained, len(results)])
            rows[-1].append(less(results, reference))
    head = ["", "held-out images, %", "training images, last epoch, %", "n", "less `-plus`, points (95 %)"]
    return table(head, rows)


def by_cutout() -> str:
    """The paper's circuit by rate and cutout."""
    rows = []
    for row in cutout.rows():
        if results := _there("cutout", row.name):
            rate, name = row.name.split(", ")
            best = statistics.mean(max(result["accuracy"]) for result in results)
            rows.append([rate, name, spread(results), len(results), accuracies(results), f"{best:.1f}"])
    head = ["learning rate", "cutout", "accuracy after the last epoch, %", "n", "by seed", "best epoch, %"]
    return table(head, rows)


def _there(study: str, row: str) -> list[Result]:
    """The runs of a row that are there, maybe none."""
    return [read(file) for file in sorted((RESULTS / study).glob(f"{slug(row)}-[0-9].json"))]


def acting_weights() -> str:
    found = read(RESULTS / "acting_weights.json")["layers"]
    rows = [
        [
            k,
            f"{row['least_total']:.2f} to {row['most_total']:.2f}",
            f"{row['imbalance']:.0e}",
            f"{row['correlation']:.3f}",
        ]
        for k, row in enumerate(found.values(), 1)
    ]
    head = [
        "layer",
        "acting totals, R",
        "largest imbalance, R",
        "correlation of the divisive current with mean activity",
    ]
    return table(head, rows)


def precision() -> str:
    """What float32 changes in a trained network, by layer."""
    rows = []
    for k, layer in enumerate(read(BENCHMARKS / "precision_vgg8.json")["trained"]["layers"].values(), 1):
        error, alone, within = (
            layer[key] for key in ("current_error_over_std", "spikes_changed_alone", "spikes_changed_in_network")
        )
        forms = ("folded 32", "naive 32")
        rows.append([k, *(f"{error[form]:.1e}" for form in forms)])
        rows[-1] += [f"{1e6 * spikes[form]:.2f}" for spikes in (alone, within) for form in forms]
    head = ["layer", "error of the current, folded", "by products"]
    head += ["spikes of a million changed by the layer, folded", "by products", "by the network, folded", "by products"]
    return table(head, rows)


def cost() -> str:
    """A training step beside the authors' program."""
    found = read(BENCHMARKS / "authors_cpu_vgg8.json")["milliseconds"]
    rows = [
        [f"batch {batch}", ms["their E-I"], ms["their batch norm"], ms["E-I"], ms["plus"], ms["batch norm"]]
        for batch, ms in found.items()
    ]
    return table(["", "authors' E-I", "authors' batch norm", "E-I", "`-plus`", TWIN], rows)


def step() -> str:
    """A training step on a CPU."""
    found = read(BENCHMARKS / "cpu_intel_vgg8_b32.json")["networks"]
    ei, bn, stock = (found[name] for name in ("ei", "bn", "stock"))
    quantities = {
        "training step, ms": ("step_seconds", 1000),
        "forward, ms": ("forward_seconds", 1000),
        "peak memory, MiB": ("peak_bytes", 1 / MEBIBYTE),
        "kept for the backward pass, MiB": ("saved_bytes", 1 / MEBIBYTE),
    }
    rows = [
        [title, *(f"{unit * of[key]:.0f}" for of in (ei, bn)), f"{ei[key] / bn[key]:.2f}", f"{unit * stock[key]:.0f}"]
        for title, (key, unit) in quantities.items()
    ]
    return table(
        ["VGG-8, batch 32, T = 4, fp32", "E-I", TWIN, "ratio", "stock Conv2d, BatchNorm2d, loop over T"],
        rows,
    )


def thread_step() -> str:
    """A training step of one thread by batch, in CPU time."""
    rows = []
    for batch in (16, 32, 128):
        found = read(BENCHMARKS / f"cpu_thread_vgg8_b{batch}.json")["networks"]
        times = {name: found[name]["step_cpu_seconds"] for name in ("ei", "plus", "bn", "stock", "spikingjelly")}
        ratio = times["plus"] / times["bn"]
        rows.append([f"batch {batch}", *(f"{1000 * time:.0f}" for time in times.values()), f"{ratio:.2f}"])
    return table(["", "E-I", "`-plus`", TWIN, "stock", "SpikingJelly's neurons", "`-plus` / twin"], rows)


def attention_step() -> str:
    """An attention layer beside SpikingJelly's."""
    found = read(BENCHMARKS / "attention_intel.json")["rows"]
    titles = {"spikingjelly": "SpikingJelly, batch norm", "batch norm, fixed": "batch norm, fixed scale"}
    rows = [
        [titles.get(name, name), f"{row['fastest_ms']:.0f}", f"{row['median_ms']:.0f}"] for name, row in found.items()
    ]
    return table(["layer", "fastest, ms", "median, ms"], rows)


def cortex_step() -> str:
    """What each option of a cortical layer costs, in dense layers and on maps."""
    found = read(BENCHMARKS / "cortex.json")
    paper = "the paper's circuit"
    titles = {
        "plain": "plain: E and PV cells, rho = 0.1",
        "no recurrence": "without recurrence",
        "delay of 3 steps": "a delay of 3 steps",
        "synaptic filters": "synaptic filters, 3 and 6 ms",
        "steps of 10 ms": "steps of 10 ms, so five times the spikes a step",
        "SpikingJelly": "SpikingJelly, `LinearRecurrentContainer`",
        "snnTorch": "snnTorch, `RLeaky`",
    }
    rows = []
    for name in found["networks"]:
        cells = [titles.get(name, name)]
        for kind in ("networks", "maps"):
            if of := found[kind].get(name):
                ratio = of["step_seconds"] / found[kind][paper]["step_seconds"]
                cells += [f"{1000 * of['step_seconds']:.0f}", f"{ratio:.1f}", f"{of['saved_bytes'] / MEBIBYTE:.0f}"]
            else:
                cells += ["", "", ""]
        rows.append(cells)
    head = ["", "dense: step, ms", "ratio", "kept, MiB", "maps: step, ms", "ratio", "kept, MiB"]
    return table(head, rows)


def gratings() -> str:
    """Medians of cell types under gratings."""
    found = read(RESULTS / "gratings.json")["medians"]
    rows = []
    for source, kinds in found.items():
        for kind, of in kinds.items():
            cells = [f"{of[part]:.2f}" if of[part] is not None else "" for part in ("osi", "dsi")]
            rows.append([f"{kind}, {source}", *cells, f"{of['rate']:.1f}" if of["rate"] is not None else ""])
    return table(["", "OSI", "DSI", "rate, Hz"], rows)


def published_recipes() -> str:
    """The recipes of E-I networks, and what the paper has for them."""
    rows = []
    for name, config in recipes().items():
        if not name.endswith(("-bn", "-plus", "-published", "-unconstrained")):
            steps = config.optimization
            on = (config.network.time_steps, config.data.batch_size)
            told = (f"{steps.lr:g}", f"{steps.warmup_epochs:g}", steps.epochs)
            rows.append([f"`{name}`", *on, *told, PUBLISHED.get(name, "not in the paper")])
    return table(["recipe", "T", "batch", "learning rate", "warm-up, epochs", "epochs", "published, %"], rows)


def cognitive_tasks() -> str:
    """Accuracy of both circuits of each task, of who sums the evidence, and what silencing costs."""
    looked = read(RESULTS / "tasks" / "inside.json")["rows"]
    lines = []
    for task in TASKS:
        circuit, twin = (runs("tasks", name) for name in (task, f"{task}, unconstrained"))
        seen = list(looked[task].values())
        observer = [one["observer"] for one in seen if "observer" in one]
        lines.append(
            [
                f"`{task}`",
                spread(circuit),
                spread(twin),
                f"{statistics.mean(observer):.1f}" if observer else "–",
                f"{statistics.mean(one['rate_hz'] for one in seen):.1f}",
                len(circuit),
            ]
        )
    head = ["recipe", "Dale's law, %", "unconstrained, %", "sums the evidence, %", "E cells, spikes/s", "seeds"]
    return table(head, lines)


def silenced_cells() -> str:
    """Accuracy of the circuit of each task with a kind of cell silenced in a period."""
    looked = read(RESULTS / "tasks" / "inside.json")["rows"]
    lines = []
    for task, periods in SILENCED.items():
        seen = [one["silenced"] for one in looked[task].values()]
        for period in periods:
            each = [[one[f"{kind} x 0 in {period}"] for one in seen] for kind in ("PV", "SST")]
            lines.append([f"`{task}`", period, *(", ".join(f"{value:.0f}" for value in values) for values in each)])
    return table(["recipe", "silenced in the", "PV cells, % by seed", "SST cells, % by seed"], lines)


def networks() -> str:
    """The trained networks in the package, by their cards."""
    rows = []
    for name in network_names():
        card = (IN_PACKAGE / name / CARD).read_text()
        config = json.loads((IN_PACKAGE / name / "config.json").read_text())
        (accuracy,), (parameters,) = (
            re.findall(p, card) for p in (r"accuracy, test \| ([\d.]+) %", r"([\d,]+) parameters")
        )
        network, on = config["network"], config["data"]["dataset"]
        kind = network["circuit"] + (", exact balance" if network["circuit_options"]["conserved"] else "")
        rows.append([f"[`{name}`](../../eisnn/networks/{name}/{CARD})", network["model"], kind, on])
        rows[-1] += [network["time_steps"], parameters, f"{float(accuracy):.1f}"]
    return table(["name and card", "model", "circuit", "data", "T", "parameters", "test accuracy, %"], rows)


STEPS = ("10", "5", "2", "1")  # ms, of experiments/cortex_time_step.py


def by_time_step(circuits: Sequence[str], value: Callable[[dict[str, Any]], str]) -> str:
    """What a layer of 512 cells does at each time step."""
    layers = read(RESULTS / "cortex_time_step.json")["layers"]
    names = [[f"512 inputs, 512 cells, {circuit}, {dt} ms" for dt in STEPS] for circuit in circuits]
    found = [[value(layers[name]) for name in row] for row in names]
    return table(["dt, ms", *STEPS], [[circuit, *row] for circuit, row in zip(circuits, found, strict=True)])


def borne_recurrence() -> str:
    """The largest rho that a layer of 100 cells bears."""
    found = read(RESULTS / "cortex_time_step.json")["bears"]
    return table(["dt, ms", *STEPS], [[name, *(f"{of[dt]:g}" for dt in STEPS)] for name, of in found.items()])


def divided() -> str:
    """Accuracy of each form of division and of integers, and the share of answers that are those of the network."""
    found = read(RESULTS / "deployment" / "deployment.json")["runs"]
    columns = {f"`{name}`": list(found[name].values()) for name in ("demo", "demo-plus")}
    columns["VGG-8, quarter width, `-plus`"] = read(RESULTS / "deployment_vgg8" / "deployment_vgg8.json")["runs"]
    kinds = {"float": "exact"} | {f"lut, {n} entries": f"table of {n}" for n in (64, 16, 4)}
    kinds |= {"shift": "shift", "held": "held"}
    forms = kinds | {f"integer, {key}": f"integers, {kinds[key]}" for key in ("lut, 64 entries", "shift", "held")}
    head = ["division", *(cell for title, runs in columns.items() for cell in (f"{title} (n = {len(runs)})", "same"))]
    rows = []
    for form, title in forms.items():
        row = [title]
        for runs in columns.values():
            same = "" if form == "float" else f"{statistics.mean(run[f'{form}, same'] for run in runs):.1f}"
            row += [over([run[form] for run in runs]), same]
        rows.append(row)
    return table(head, rows)


def tuned() -> str:
    """What a few epochs through shifts win back, by seed."""
    found = read(RESULTS / "deployment" / "deployment.json")["runs"]
    rows = []
    for name in ("demo", "demo-plus"):
        for key, title in {
            name: "as it is",
            f"{name}, 5 more epochs, exact": "after 5 more epochs of exact division",
            f"{name}, 5 more epochs, shift": "after 5 more epochs through shifts",
        }.items():
            runs = list(found[key].values())
            numbers = [[run[form] for run in runs] for form in ("shift", "integer, shift")]
            rows.append([f"`{name}`", title, *(by_seed(values) for values in numbers)])
    return table(["network", "", "divides by shifts", "by shifts, in integers"], rows)


def rates() -> str:
    """Firing rate and accuracy after a few epochs towards a rate."""
    curves = {
        **{f"`{name}`": points for name, points in read(RESULTS / "rates" / "curves.json")["curves"].items()},
        "VGG-8, quarter width": read(RESULTS / "rates_vgg8" / "curves.json")["curves"]["vgg8"],
    }
    rows = []
    for target in (None, 0.12, 0.06, 0.03):
        row: list[object] = ["no target" if target is None else target]
        for points in curves.values():
            at = [p for p in points if p["target"] == target]
            row += [f"{100 * at[0]['firing_rate']:.1f}", f"{at[0]['accuracy']:.1f}"] if at else ["", ""]
        rows.append(row)
    return table(["target", *(cell for title in curves for cell in (f"{title}: rate, %", "accuracy, %"))], rows)


def mismatch() -> str:
    """Accuracy on virtual chips, without and with gains that are calibrated again."""
    found = read(RESULTS / "mismatch" / "mismatch.json")["summary"]
    spreads = {"10 %": "0.1", "20 %": "0.2", "30 %": "0.3"}
    rows = []
    for name, told in found.items():
        kinds = [
            [told[f"{spread}{calibrated}"]["mean"] for calibrated in ("", ", calibrated")]
            for spread in spreads.values()
        ]
        rows.append([f"`{name}`", f"{told['itself']['mean']:.1f}", *(f"{a:.1f}, {b:.1f}" for a, b in kinds)])
    return table(["", "no mismatch", *spreads], rows)


TABLES: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "cost": cost,
    "demo": demo,
    "full width": full_width,
    "campaign": campaign,
    "quarter width": quarter_width,
    "on a CPU": on_a_cpu,
    "recordings of N-MNIST": recordings_of_nmnist,
    "simulated recordings": simulated_recordings,
    "table 1": lambda: of_study("table1", table1.rows("cifar10", ("vgg8",))),
    "table 2": lambda: of_study("table2", table2.rows()),
    "table 3": lambda: of_study("table3", table3.rows()),
    "figure 5": first_gradients,
    "figure 6": lambda: of_study("figure6", figure6.rows()),
    "screening": choice,
    "changes": changes,
    "screening report": report,
    "parts of plus": parts,
    "optimizers": optimizers,
    "gap": towards_the_twin,
    "cutout": by_cutout,
    "acting weights": acting_weights,
    "depth at the start": lambda: depth.start_table(RESULTS / "depth"),
    "depth trained": lambda: depth.table(RESULTS / "depth"),
    "attention": lambda: of_study("attention", attention.rows()),
    "attention at the start": lambda: attention.start_table(RESULTS / "attention"),
    "attention step": attention_step,
    "cortex step": cortex_step,
    "cortex vision": lambda: of_study("cortex_vision", cortex_vision.rows()),
    "cortex changed images": lambda: cortex_vision.changed_table(RESULTS / "cortex_vision"),
    "gratings": gratings,
    "start rate": start_rates,
    "divisions": divided,
    "tuned": tuned,
    "rates": rates,
    "mismatch": mismatch,
    "precision": precision,
    "training step": step,
    "training step, one thread": thread_step,
    "recipes": published_recipes,
    "cognitive tasks": cognitive_tasks,
    "silenced cells": silenced_cells,
    "networks": networks,
    "cortex rates": lambda: by_time_step(
        ("no recurrence", "rho = 0.1", "rho = 0.1, delay of 10 ms"),
        lambda of: f"{of['rate_hz']:.1f} ({of['onset_hz']:.0f}); {of['divisor']:.2f}",
    ),
    "cortex spiking": lambda: by_time_step(
        ("rho = 0.1", "spiking", "spiking, tau_gaba = 6"),
        lambda of: f"{of['divisor']:.2f}; {of['shared'] / of['own']:.1f}",
    ),
    "cortex stability": borne_recurrence,
    **{
        f"cortex {name}": partial(cortical_phenomena.table, RESULTS / "cortical_phenomena" / f"{name}.json")
        for name in cortical_phenomena.PHENOMENA
    },
}
PLACE = re.compile(r"(<!-- table ([^>]+?) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def current(text: str) -> str:
    """A page with its tables made anew. Raises: KeyError for a table that is not known."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (made := current(text)) != text:
            print(page.relative_to(ROOT))
            if check:
                sys.exit("not current: run python experiments/tables.py")
            page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
