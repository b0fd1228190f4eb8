"""Figure 8: feature maps of an E-I network and of its batch-norm twin, VGG-8, first layer.

The paper: the circuit's maps are concentrated on contours, those of batch norm dense. In numbers, over test images: how
the size of the current goes with the contrast of the image (correlation over positions with the Sobel gradient), and
the part of the positions that holds half of the current's size (0.5: spread evenly).

    python experiments/figure8.py --data-path CIFAR10
    python experiments/figure8.py --data-path CIFAR10 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

import torch
from distributions import figure_files, images
from matplotlib.figure import Figure
from study import described, parser, run_script, trained
from telling import Row
from torch import Tensor
from torch.nn import functional as F

from eisnn.methods.bn import BNLayer
from eisnn.models import SpikingNetwork
from eisnn.nn import EILayer
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

ROWS = {"E-I": "cifar10-vgg8", "batch norm": "cifar10-vgg8-bn"}
SHOWN = 4


@torch.no_grad()
def first_currents(model: SpikingNetwork, x: Tensor) -> Tensor:
    """What the neurons of the first layer receive: `[B, n, H, W]`, the same at each step."""
    layer = next(m for m in model.modules() if isinstance(m, EILayer | BNLayer))
    if isinstance(layer, EILayer):
        return layer.integrated(x[None])[0]
    return layer.norm(layer.projection(x))


def contrast(x: Tensor) -> Tensor:
    """Size of the Sobel gradient of the mean of the colours, `[B, 1, H, W]`."""
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], dtype=x.dtype)
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None]).norm(dim=1, keepdim=True)


def measures(maps: Tensor, x: Tensor) -> dict[str, float]:
    """Means over images and channels that are not constant; without the border, which is an edge to every kernel."""
    maps, edges = maps[..., 1:-1, 1:-1], contrast(x)[..., 1:-1, 1:-1]
    size = (maps - maps.mean((2, 3), keepdim=True)).abs().flatten(2)
    edges = edges.flatten(2).expand_as(size)
    alive = size.std(2) > 1e-6
    a, b = size - size.mean(2, keepdim=True), edges - edges.mean(2, keepdim=True)
    correlation = (a * b).sum(2) / (a.norm(dim=2) * b.norm(dim=2)).clamp_min(1e-12)
    ordered = size.sort(2, descending=True).values.cumsum(2)
    half = (ordered < 0.5 * ordered[..., -1:]).double().mean(2)
    return {
        "contrast": float(correlation[alive].mean()),
        "half": float(half[alive].mean()),
        "alive": float(alive.double().mean()),
    }


def main() -> None:
    args = parser(__doc__, rows=False).parse_args()
    maps, numbers, configs = {}, {}, {}
    for name, recipe_name in ROWS.items():
        _, after = trained(Row(name, recipe(recipe_name)), args)
        x = images(after)
        maps[name] = first_currents(after.model.eval(), x)
        numbers[name] = measures(maps[name], x)
        configs[name] = described(after.config)
    result, text, picture = figure_files(args)
    write_result(result, {**provenance(), "images": len(x), "networks": numbers, "config": configs})
    lines = ["| | correlation with contrast | positions that hold half | channels that vary |", "|---|---|---|---|"]
    lines += [f"| {name} | " + " | ".join(f"{v:.2f}" for v in row.values()) + " |" for name, row in numbers.items()]
    text.write_text("\n".join(lines) + "\n")
    figure = Figure(figsize=(1.5 * (1 + 2 * SHOWN), 1.6 * SHOWN), layout="constrained")
    panels = figure.subplots(SHOWN, 1 + 2 * SHOWN)
    for row in range(SHOWN):
        image = row * (len(x) // SHOWN)
        panels[row][0].imshow(x[image].permute(1, 2, 0).float().numpy())
        for k, (name, found) in enumerate(maps.items()):
            loud = found.std((0, 2, 3)).argsort(descending=True)[:SHOWN]
            for column, channel in enumerate(loud.tolist()):
                axes = panels[row][1 + k * SHOWN + column]
                axes.imshow(found[image, channel].numpy(), cmap="gray")
                if row == 0:
                    axes.set_title(f"{name}, {channel}", fontsize="x-small")
    for axes in panels.flat:
        axes.set_axis_off()
    figure.savefig(picture, dpi=110)
    print("\n".join(lines))


if __name__ == "__main__":
    run_script(main)
