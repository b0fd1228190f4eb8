"""Does a cortical layer depend on its time step? Rates, synchrony and the noise of the divisor at dt = 10 to 1 ms.

E-I Init sees Poisson inputs of 20 Hz for a second (batch 8); what is told is measured with other inputs of the same
kind, after the first 100 ms. Of the membrane without threshold, in units of the threshold: `shared` is the standard
deviation of its mean over the cells of a sample, `own` that of the single cells around it. `divisor` is the standard
deviation of the divisive current over time by its mean. `onset_hz` is the rate in the first 100 ms. A layer that E-I
Init refuses is told with its reason. `bears` is the largest rho of `SHARES` that it does not refuse, by time step.

    python experiments/cortex_time_step.py --output experiments/results/cortex_time_step.json
"""

import argparse
from pathlib import Path
from typing import Any

import torch

import eisnn
from eisnn.cortex import CorticalLinear, CorticalOptions
from eisnn.functional import cortex as FC
from eisnn.provenance import provenance, write_result

STEPS = (10.0, 5.0, 2.0, 1.0)
SIZES = {"200 inputs, 100 cells": (200, 100), "512 inputs, 512 cells": (512, 512)}
CIRCUITS: dict[str, dict[str, Any]] = {
    "no recurrence": {"recurrence": 0.0},
    "rho = 0.1": {"recurrence": 0.1},
    "rho = 0.1, delay of 10 ms": {"recurrence": 0.1, "delay": 10.0},
    "spiking": {"recurrence": 0.1, "spiking": True},
    "spiking, tau_gaba = 6": {"recurrence": 0.1, "spiking": True, "tau_gaba": 6.0},
}
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4)
SYNAPSES: dict[str, dict[str, Any]] = {
    "no memory": {},
    "AMPA 3, GABA 6 ms": {"tau_ampa": 3.0, "tau_gaba": 6.0},
}


def poisson(dt: float, inputs: int, seed: int) -> torch.Tensor:
    chances = torch.rand(round(1000 / dt), 8, inputs, generator=torch.Generator().manual_seed(seed))
    return (chances < 20 * dt / 1000).float()


def filled(inputs: int, cells: int, dt: float, options: dict[str, Any]) -> CorticalLinear:
    layer = CorticalLinear(inputs, cells, options=CorticalOptions(dt=dt, **options))
    eisnn.ei_init_(layer, poisson(dt, inputs, 0), generator=torch.Generator().manual_seed(1))
    return layer


def bears(dt: float, options: dict[str, Any]) -> float:
    largest = 0.0
    for share in SHARES:
        try:
            filled(200, 100, dt, {**options, "recurrence": share})
        except ValueError:
            break
        largest = share
    return largest


def measure(inputs: int, cells: int, dt: float, options: dict[str, Any]) -> dict[str, Any]:
    onset, seen = round(100 / dt), []
    try:
        layer = filled(inputs, cells, dt, options)
    except ValueError as refused:
        return {"refused": str(refused)}
    with torch.no_grad():
        weights = layer.weights()
        FC.cortical_circuit(
            layer.feedforward(poisson(dt, inputs, 2), weights), weights, layer.constants, see=seen.append
        )
    i_e, i_div, s_e = (torch.stack([getattr(step, name) for step in seen]) for name in ("i_e", "i_div", "s_e"))
    decay = layer.neuron.constants.decay
    v = (FC.leaky(i_e, decay, torch.zeros_like(i_e[0])) / (1 - decay))[onset:]
    shared, i_div = v.mean(2, keepdim=True), i_div[onset:]
    return {
        "rate_hz": float(s_e[onset:].mean()) * 1000 / dt,
        "onset_hz": float(s_e[:onset].mean()) * 1000 / dt,
        "shared": float(shared.std()),
        "own": float((v - shared).std()),
        "divisor": float((i_div.std(0) / i_div.mean(0)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    for size, (inputs, cells) in SIZES.items():
        for circuit, options in CIRCUITS.items():
            for dt in STEPS:
                row = rows[f"{size}, {circuit}, {dt:g} ms"] = measure(inputs, cells, dt, options)
                told = ", ".join(f"{name} {value:.2f}" if name != "refused" else value for name, value in row.items())
                print(f"{size}, {circuit}, {dt:g} ms: {told}", flush=True)
    if args.output:
        borne = {name: {f"{dt:g}": bears(dt, options) for dt in STEPS} for name, options in SYNAPSES.items()}
        write_result(args.output, {**provenance(), "draws": 1, "layers": rows, "bears": borne})


if __name__ == "__main__":
    main()
