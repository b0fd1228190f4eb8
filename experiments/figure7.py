"""Figure 7: distributions of the outputs of the batch-norm layers after training, VGG-8.

The paper: all zero-centred and Gaussian, where the currents of E-I circuits become bimodal (Figure 4).

    python experiments/figure7.py --data-path CIFAR10
    python experiments/figure7.py --data-path CIFAR10 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

import torch
from distributions import images, tell
from study import parser, run_script, trained
from telling import Row
from torch import Tensor, nn

from eisnn.models import SpikingNetwork
from eisnn.train import recipe


@torch.no_grad()
def outputs(model: SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """Of each batch norm for images `x`."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> None:
        norms[name].register_forward_hook(lambda module, args, output: found.update({name: output}))

    norms = {name: m for name, m in model.eval().named_modules() if isinstance(m, nn.BatchNorm2d)}
    for name in norms:
        hook(name)
    model(x)
    return found


def main() -> None:
    args = parser(__doc__, rows=False).parse_args()
    _, after = trained(Row("batch norm", recipe("cifar10-vgg8-bn")), args)
    x = images(after)
    values = {name: {"after training": v} for name, v in outputs(after.model, x).items()}
    tell(args, after, len(x), values, "output")


if __name__ == "__main__":
    run_script(main)
