"""Figure 4: distributions of the integrated current I_E by layer, after E-I Init and after training, VGG-8.

The paper: zero-centred and Gaussian at the start, some bimodal after training.

    python experiments/figure4.py --data-path CIFAR10
    python experiments/figure4.py --data-path CIFAR10 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

import torch
from distributions import images, tell
from study import parser, run_script, trained
from telling import Row
from torch import Tensor

from eisnn.analysis import record
from eisnn.models import SpikingNetwork
from eisnn.train import recipe


@torch.no_grad()
def currents(model: SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """I_E of each hidden layer for images `x`."""
    with record(model.eval(), what="I_E") as recorded:
        model(x)
    return {name: found["I_E"] for name, found in recorded.items()}


def main() -> None:
    args = parser(__doc__, rows=False).parse_args()
    before, after = trained(Row("E-I", recipe("cifar10-vgg8")), args)
    x = images(after)
    start, end = currents(before, x), currents(after.model, x)
    values = {name: {"at the start": start[name], "after training": end[name]} for name in start}
    tell(args, after, len(x), values, "$I_E$")


if __name__ == "__main__":
    run_script(main)
