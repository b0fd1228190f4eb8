"""What a run is and how it went: the first numbers, configuration, curves, layers, and where the numbers come from."""

from collections.abc import Iterator
from typing import Any

import docstring_parser
from pydantic import BaseModel

from eisnn.analysis import figures as fig
from eisnn.analysis import spiking_layers
from eisnn.nn import dale_violations
from eisnn.nn.dale import constrained_parameters
from eisnn.provenance import provenance
from eisnn.report.opened import Opened
from eisnn.report.page import Fact, Figure, Key, Panel, Section, Table


def facts(opened: Opened) -> list[Fact]:
    """The numbers to see first."""
    epochs = opened.run.metrics()
    found = []
    if tested := [line for line in epochs if "test_accuracy" in line]:
        last = tested[-1]
        found = [
            Fact(f"{last['test_accuracy']:.1f} %", f"accuracy on {opened.split} after epoch {last['epoch']}"),
            Fact(f"{last['best_accuracy']:.1f} %", "best accuracy of all epochs"),
            Fact(f"{last['train_accuracy']:.1f} %", "accuracy on training images, as augmented"),
            Fact(f"{last['test_firing_rate']:.3f}", "spikes a neuron and time step"),
        ]
        if "test_average_accuracy" in last:
            found.insert(1, Fact(f"{last['test_average_accuracy']:.1f} %", "the same with averaged weights"))
    found += [
        Fact(f"{opened.chance:.1f} %", "accuracy of guessing"),
        Fact(f"{sum(p.numel() for p in opened.model.parameters()):,}", "parameters"),
    ]
    if any(True for _ in constrained_parameters(opened.model)):
        found.append(Fact(f"{sum(dale_violations(opened.model).values())}", "parameters of the wrong sign"))
    return found


def notes(opened: Opened) -> list[str]:
    """What a reader must know before all else."""
    done, planned = opened.metadata.get("progress", {}).get("epoch", 0), opened.config.optimization.epochs
    found = [f"This run has diverged: {end['reason']}." for end in opened.run.metrics("end")]
    if done < planned:
        found.append(f"This run has not ended: {done} of {planned} epochs. The network is that of the last checkpoint.")
    return found


def training(opened: Opened, against: Opened | None) -> Section:
    """Curves over the epochs."""
    title, epochs = "Training", opened.run.metrics()
    if not epochs:
        return Section(title, "No epoch has ended, so there is no curve to draw.")
    quantities = [
        ("accuracy", "accuracy (%)", "Accuracy"),
        ("loss", "cross-entropy", "Loss"),
        ("firing_rate", "spikes a neuron and step", "Firing rate"),
    ]
    panels = []
    for key, label, heading in quantities:
        curves = {part: _by_epoch(opened, f"{part}_{key}") for part in ("train", "test")}
        if against is not None:
            curves["against"] = _by_epoch(against, f"test_{key}")
        ends = ", ".join(f"{part} {_ends(curve)}" for part, curve in curves.items())
        alt = f"{heading} over {len(epochs)} epochs: {ends}"
        panels.append(Panel(fig.svg(fig.progress, curves, label), alt, heading))
    rates = _by_epoch(opened, "lr")
    svg = fig.svg(fig.progress, {"lr": rates}, "learning rate")
    panels.append(
        Panel(svg, f"Learning rate at the end of each epoch, at most {max(rates.values()):.3g}", "Learning rate")
    )
    legend = [Key("training images", fig.BLUE), Key(opened.split, fig.ORANGE, "dashed")]
    if against is not None:
        legend.append(Key(f"{against.name} ({against.network}), {against.split}", fig.GREEN, "dashdot"))
    reading = (
        "Both curves should improve together; training images that go on improving alone are being memorized. Training "
        "images are augmented and measured while the weights change, so they may look harder. A firing rate that falls "
        "to 0 or rises to 1 says that neurons have stopped to carry information."
    )
    seconds = sum(line["seconds"] for line in epochs)
    text = (
        f"{len(epochs)} {'epoch' if len(epochs) == 1 else 'epochs'} of {len(opened.dataset.train):,} {opened.samples} "
        f"in {_duration(seconds)} "
        f"({epochs[-1]['images_per_second']:,.0f} a second in the last), evaluated on "
        f"{len(opened.dataset.test):,} {opened.split}."
    )
    return Section(title, text, [Figure("Learning curves", panels, reading, legend)])


def _by_epoch(opened: Opened, key: str) -> dict[int, float]:
    """A logged quantity after the epochs that have it."""
    return {line["epoch"]: line[key] for line in opened.run.metrics() if key in line}


def _ends(curve: dict[int, float]) -> str:
    values = list(curve.values())
    return f"{values[0]:.3g} to {values[-1]:.3g}" if values else "not measured"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )


def layers(opened: Opened) -> Section:
    """A row for each layer: size and activity."""
    if opened.unseen:
        return Section("Layers", opened.unseen)
    rows, activity = [], opened.assessed["layers"]
    for name, layer in spiking_layers(opened.model).items():
        active = activity[name]
        parameters = sum(p.numel() for p in layer.parameters())
        neurons, paths = layer.populations(), layer.pathways()
        fan_in = str(paths[0].weight[0].numel()) if paths else "–"
        sizes = [*(str(neurons.get(name, "–")) for name in ("E", "I")), fan_in]
        shares = [f"{active['rate']:.3f}", f"{100 * active['silent']:.1f}", f"{100 * active['saturated']:.1f}"]
        undivided = f"{100 * active['undivided']:.2f}" if "undivided" in active else "–"
        rows.append([name, type(layer).__name__, *sizes, f"{parameters:,}", *shares, undivided])
    readout = opened.model.readout
    size = sum(p.numel() for p in readout.parameters())
    rows.append(["readout", type(readout).__name__, *["–"] * 3, f"{size:,}", *["–"] * 4])
    columns = ["layer", "kind", "E", "I", "fan-in d", "parameters"]
    columns += ["rate", "silent %", "always firing %", "undivided %"]
    reading = (
        "E and I: excitatory and inhibitory neurons (channels of a convolution). Rate: spikes a neuron and time step. "
        f"Silent: neurons that never fire for {len(opened.labels)} {opened.samples}; always firing: at every step of "
        "each. Undivided: currents that no inhibition divides (stabilised)."
    )
    return Section(
        "Layers",
        f"{opened.network}, T = {opened.config.network.time_steps} time steps, {len(opened.labels)} {opened.split}.",
        [Table("Size and activity of each layer", columns, rows, reading)],
    )


def configuration(opened: Opened) -> Section:
    """Every field of the configuration."""
    rows = [[name, value, text] for name, value, text in _fields(opened.run.config())]
    text = "All that describes the training, as it is in config.json."
    return Section("Configuration", text, [Table("Fields", ["field", "value", "meaning"], rows, text=True)])


def _fields(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name in config.model_dump():  # which leaves out what belongs to another data set or circuit
        field, value = type(config).model_fields[name], getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _fields(value, f"{prefix}{name}.")
        elif hasattr(value, "__dataclass_fields__"):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value), field.description or ""


def _options(options: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Of a dataclass, whose docstring says what each field means."""
    meanings = {p.arg_name: p.description or "" for p in docstring_parser.parse(type(options).__doc__ or "").params}
    for name, value in vars(options).items():
        if hasattr(value, "__dataclass_fields__"):
            yield from _options(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value), " ".join(meanings.get(name, "").split())


def origin(opened: Opened) -> Section:
    """Command, machine and versions, of the page and of the run."""
    here = provenance()
    then = opened.metadata.get("versions", {})
    rows = [
        ["command of this page", here["command"]],
        ["machine of this page", ", ".join(f"{key} {value}" for key, value in here["machine"].items())],
        ["versions of this page", ", ".join(f"{key} {value}" for key, value in here["versions"].items())],
        ["versions of the training", ", ".join(f"{key} {value}" for key, value in then.items())],
        [
            "network before training",
            opened.no_initial or "made again from the run's seed, by E-I Init where it applies",
        ],
        ["images", f"{len(opened.labels)} of the {len(opened.dataset.test):,} {opened.split} of {opened.dataset.name}"],
    ]
    text = "Where the numbers of this page come from."
    return Section("Origin", text, [Table("Provenance", ["what", "value"], rows, text=True)])
