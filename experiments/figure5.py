"""Figure 5: norms of the gradients by parameter and layer at the first training step, VGG-8, without gradient scaling.

The paper: those of W_EI are far larger than the others, and so it scales them by 1/d. Beside the norms stand the
relative ones, |dW| / |W|, which say how far a step of the same rate moves each parameter. A second table has the norm
of W_EE's gradient by layer for every ablation: how a fixed epsilon blows it up from layer to layer downwards.

    python experiments/figure5.py --data-path CIFAR10
    python experiments/figure5.py --data-path CIFAR10 --width 0.25 --batch-size 64
"""

import torch
from distributions import figure_files
from matplotlib.figure import Figure
from study import budgeted, described, parser, run_script

from eisnn.analysis.figures import COLORS
from eisnn.data.config import load_data, train_loader
from eisnn.methods import ABLATIONS
from eisnn.nn import EILayer
from eisnn.provenance import provenance, write_result
from eisnn.train import TrainConfig, initial_model, recipe
from eisnn.train.loss import cross_entropy

PARAMETERS = ("weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e", "bias")
Norms = dict[str, dict[str, float]]


def first_gradients(config: TrainConfig) -> tuple[Norms, Norms, dict[str, int]]:
    """Norms, relative norms and fan-in by layer, on the first batch that the run would train on."""
    model = initial_model(config)
    batch = next(train_loader(config.data, load_data(config.data, config.network.time_steps), config.seed).epoch(0))
    cross_entropy(model(batch.images), batch.labels).backward()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, EILayer)}
    norms: Norms = {name: {} for name in layers}
    relative: Norms = {name: {} for name in layers}
    for name, layer in layers.items():
        for parameter in PARAMETERS:
            p = getattr(layer, parameter)
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad  # g_I where nothing divides
            norms[name][parameter] = float(p.grad.norm())
            if float(p.detach().norm()) > 0:  # biases start at 0
                relative[name][parameter] = float(p.grad.norm() / p.detach().norm())
    return norms, relative, {name: layer.fan_in for name, layer in layers.items()}


def table(norms: Norms, relative: Norms, fan_in: dict[str, int]) -> str:
    lines = ["| layer | d | " + " | ".join(PARAMETERS) + " | W_EI relative to W_EE |", "|---|---|" + "---|" * 7]
    for name, row in norms.items():
        ratio = relative[name]["weight_ei"] / relative[name]["weight_ee"]
        cells = " | ".join(f"{row[parameter]:.2g}" for parameter in PARAMETERS)
        lines.append(f"| {name} | {fan_in[name]} | {cells} | {ratio:.1f} |")
    return "\n".join(lines)


def ablation_table(norms: dict[str, Norms]) -> str:
    """|dW_EE| by layer."""
    layers = list(next(iter(norms.values())))
    lines = ["| dW_EE | " + " | ".join(layers) + " |", "|---|" + "---|" * len(layers)]
    lines += [
        f"| {name} | " + " | ".join(f"{row[k]['weight_ee']:.2g}" for k in layers) + " |" for name, row in norms.items()
    ]
    return "\n".join(lines)


def main() -> None:
    args = parser(__doc__, rows=False).parse_args()
    config = budgeted(recipe("cifar10-vgg8").changed(ablation="no-gradient-scaling"), args)
    norms, relative, fan_in = first_gradients(config)
    whole = budgeted(recipe("cifar10-vgg8"), args)
    ablations = {"the whole method": first_gradients(whole)[0]}
    ablations |= {name: first_gradients(whole.changed(ablation=name))[0] for name in ABLATIONS if name != "floor"}
    result, text, picture = figure_files(args)
    write_result(
        result,
        {
            **provenance(),
            "norms": norms,
            "relative": relative,
            "d": fan_in,
            "ablations": ablations,
            "config": described(config),
        },
    )
    told = table(norms, relative, fan_in) + "\n\n" + ablation_table(ablations)
    text.write_text(told + "\n")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (title, values) in zip(
        figure.subplots(1, 2), {"|gradient|": norms, "|gradient| / |parameter|": relative}.items(), strict=True
    ):
        for parameter, color in zip(PARAMETERS, COLORS, strict=True):
            heights = [values[name].get(parameter) for name in values]
            axes.plot(range(1, len(heights) + 1), heights, marker="o", color=color, label=parameter)
        axes.set(yscale="log", xlabel="layer", title=title, xticks=range(1, len(values) + 1))
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(picture, dpi=130)
    print(told)


if __name__ == "__main__":
    run_script(main)
