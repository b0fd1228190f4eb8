"""`eisnn demo`: small E-I networks beside their batch-norm twin, trained in minutes on the images in the package."""

import time
from datetime import datetime
from pathlib import Path
from shlex import quote

import torch

from eisnn.analysis import record
from eisnn.data import Loader
from eisnn.interop import load_trained
from eisnn.models import SpikingNetwork
from eisnn.nn import dale_violations
from eisnn.train import Interrupted, Run, TrainConfig, fit, initial_model, recipe

BEST = "E-I network, exact balance"
CURRENT_IMAGES = 200  # whose currents are drawn


def demo(out: Path | None = None, epochs: int | None = None, seed: int = 0) -> Path:
    """Train two small E-I networks and their batch-norm twin on the bundled CIFAR-10 sample, and compare them.

    Args:
        out: New folder for the runs and the picture; None makes one below runs/, named by date and time.
        epochs: Passes over the 5,000 training images; None takes the recipe's.
        seed: Of weights, order and augmentation.
    Returns: the folder.
    Raises: Interrupted: a demo is not continued, but started over.
    """
    start = time.monotonic()
    out = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    networks = {"E-I network": "demo", BEST: "demo-plus", "batch-norm twin": "demo-bn"}
    results, curves = {}, {}
    for name, recipe_name in networks.items():
        config = _config(recipe_name, epochs, seed)
        network = config.network
        print(
            f"\n{name}: {config.optimization.epochs} epochs of {network.model}, T = {network.time_steps}",
            flush=True,
        )
        folder = out / recipe_name
        try:
            results[name] = fit(config, folder)
        except Interrupted:
            raise Interrupted(
                f"stopped; to see the demo, start over with: eisnn demo (what is in {out} is not continued)"
            ) from None
        curves[name] = [line["test_accuracy"] for line in Run(folder).metrics()]

    trained = load_trained(out / "demo-plus")
    images = next(Loader(trained.dataset.test, CURRENT_IMAGES, size=trained.config.data.image_size).epoch()).images
    before, after = (_currents(model, images) for model in (initial_model(trained.config), trained.model))
    chance = 100 / len(trained.dataset.classes)
    picture = _draw(out / "demo.png", curves, before, after, chance)

    ei, plus, bn = (results[name].accuracy for name in networks)
    violations = sum(dale_violations(trained.model).values())
    print(
        f"""
After {trained.config.optimization.epochs} epochs on {len(trained.dataset.train):,} images, on \
{len(trained.dataset.test):,} images that no network has seen:

  E-I network                     {ei:5.1f} %
  E-I network, exact balance      {plus:5.1f} %
  batch-norm twin                 {bn:5.1f} %
  guessing                        {chance:5.1f} %

All are three convolutions of spiking neurons. The twin needs batch normalization, which no brain has. The E-I networks
do without: each layer is a circuit of excitatory and inhibitory neurons, the inhibitory ones subtract from and divide
the input of the excitatory ones, and no synapse changes its sign (entries of the wrong sign after training:
{violations}). The first learns as the paper has it, from a balance between the two that holds at the start. In the
second every neuron's excitation and inhibition balance exactly at every step: its weights are standardized under Dale's
law, and its input is divided by local activity.
The weights, logs and configurations are in {out}; it took {time.monotonic() - start:.0f} s. Look into them:

  eisnn report {quote(str(out / "demo-plus"))} --against {quote(str(out / "demo-bn"))}
  eisnn explore {quote(str(out / "demo-plus"))}

{picture}""",
        flush=True,
    )
    return out


def _config(name: str, epochs: int | None, seed: int) -> TrainConfig:
    config = recipe(name).changed(seed=seed)
    if epochs is None:
        return config
    return config.changed(epochs=epochs, warmup_epochs=min(config.optimization.warmup_epochs, epochs / 2))


def _currents(model: SpikingNetwork, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad(), record(model, what=["I_E"]) as recorded:
        model(images)
    return {name: currents["I_E"] for name, currents in recorded.items()}


def _draw(
    file: Path,
    curves: dict[str, list[float]],
    before: dict[str, torch.Tensor],
    after: dict[str, torch.Tensor],
    chance: float,
) -> str:
    """Learning curves above; below, histograms of the currents of the best network's layers before and after training.

    Returns: what the user is told of the picture.
    """
    try:
        from matplotlib.figure import Figure

        from eisnn.analysis.figures import accuracy_curves, currents
    except ImportError as error:
        return f"There is no picture, as {error.name} is not installed: pip install 'eisnn[report]'"
    figure = Figure(figsize=(3.2 * max(len(before), 2), 6.6), layout="constrained")
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[1.1, 1])
    accuracy_curves(top.subplots(), {BEST: curves[BEST]} | curves, chance)  # the first is blue, as its currents below
    bottom.suptitle(f"{BEST}: integrated current $I_E$ of each layer")
    panels = bottom.subplots(1, len(before), squeeze=False)[0]
    for axes, name in zip(panels, before, strict=True):
        currents(axes, before[name], after[name], threshold="black")  # orange is another network above
        axes.set(title=name, ylabel="density" if axes is panels[0] else "")
    handles, labels = panels[0].get_legend_handles_labels()
    bottom.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(labels))
    figure.savefig(file, dpi=150)
    return f"The learning curves, and the currents of each layer before and after training: {file}"
