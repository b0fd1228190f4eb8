r"""How often the neurons of `-plus` should fire at the start, by depth and number of steps, and decay outside of the
momentum: the demo's images and recipe.

E-I Init's aim is unit variance of the current, or a firing rate (`start_rate`), in spikes a step.

    python experiments/start_rate.py --output experiments/results/start_rate                 # 5 epochs
    python experiments/start_rate.py --epochs 25 --evaluate-epochs 25 --seeds 3 \
        --output experiments/results/start_rate_25 --only "convnet3, T = 4, unit variance" \
        "convnet3, T = 4, rate 0.15" "convnet3, T = 4, decoupled decay"
"""

from dataclasses import replace
from typing import Any

from study import parser, run_script, study
from telling import Row

from eisnn.nn import PLUS
from eisnn.train import recipe

RATES = (0.1, 0.15, 0.2)
NETWORKS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "convnet3, T = 2": ({"time_steps": 2}, RATES),
    "convnet3, T = 4": ({}, RATES),
    "convnet3, T = 8": ({"time_steps": 8}, RATES),
    "20 layers, T = 4": ({"model": "stack20", "width": 0.25}, (0.15,)),
}


def rows() -> list[Row]:
    """Each network with unit variance, which its others are compared with; last, decay outside of the momentum."""
    made = []
    for name, (changes, rates) in NETWORKS.items():
        config, first = recipe("demo-plus").changed(**changes), f"{name}, unit variance"
        made.append(Row(first, config))
        for rate in rates:
            options = replace(PLUS, unit_variance=False, start_rate=rate)
            made.append(Row(f"{name}, rate {rate}", config.changed(circuit_options=options), versus=first))
    decoupled = recipe("demo-plus").changed(decoupled_decay=True)
    return [*made, Row("convnet3, T = 4, decoupled decay", decoupled, versus="convnet3, T = 4, unit variance")]


if __name__ == "__main__":
    run_script(lambda: study(rows(), parser(__doc__, epochs=5).parse_args()))
