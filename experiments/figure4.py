"""Figure 4: distributions of the integrated current I_E by layer, after E-I Init and after training, VGG-8.

The paper: zero-centred and Gaussian at the start, some bimodal after training.

    python experiments/figure4.py --data-path CIFAR10
    python experiments/figure4.py --data-path CIFAR10 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

import torch
from distributions import figure_files, histograms, images, moments, table
from study import Row, described, parser, trained
from torch import Tensor

from eisnn.analysis import record
from eisnn.models import SpikingNetwork
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe


@torch.no_grad()
def currents(model: SpikingNetwork, x: Tensor) -> dict[str, Tensor]:
    """I_E of each hidden layer for images `x`."""
    with record(model.eval(), what="I_E") as recorded:
        model(x)
    return {name: found["I_E"] for name, found in recorded.items()}


def main() -> None:
    args = parser(__doc__).parse_args()
    before, after = trained(Row("E-I", recipe("cifar10-vgg8")), args)
    x = images(after)
    start, end = currents(before, x), currents(after.model, x)
    values = {name: {"at the start": start[name], "after training": end[name]} for name in start}
    numbers = {name: {state: moments(v) for state, v in states.items()} for name, states in values.items()}
    result, text, picture = figure_files(args)
    write_result(
        result,
        {
            **provenance(),
            "images": len(x),
            "config": described(after.config),
            "layers": numbers,
        },
    )
    text.write_text(table(numbers) + "\n")
    histograms(picture, values, "$I_E$")
    print(table(numbers))


if __name__ == "__main__":
    main()
