"""A trained network in NIR, the neuromorphic intermediate representation that other simulators and chips read.

NIR 1.0 has no node that divides one signal by another, so what is written either never divided (batch-norm twins) or
holds each divisor at its mean (`hold`); docs/how-to/deploy.md drafts the node that is missing.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from eisnn import functional as EF
from eisnn.deploy.stages import Stage, stages
from eisnn.files import require_writable
from eisnn.functional import LIFConstants
from eisnn.libraries import library

STEP = 1e-4  # seconds; snnTorch reads time constants in steps of this length


def nir_graph(model: nn.Module, sample_shape: tuple[int, int, int]) -> Any:
    """`model` as a `nir.NIRGraph` that is run T times on an image; the mean of its outputs is the logits.

    NIR's LIF resets to a value. The metadata `{"reset": "subtract"}` of a neuron say that the threshold is subtracted
    instead, as in the paper: a reader has to set that, in snnTorch `Leaky.reset_mechanism`.

    Args:
        model: a VGG or an MLP with LIF neurons, initialised; folded or not.
        sample_shape: channels, height and width of its images (frames).
    Raises: ValueError for a network that divides, or of another kind (`stages`); ImportError without the extra `nir`.
    """
    nir = library("nir", "nir")
    floats = stages(model, sample_shape)
    if dividing := [stage.name for stage in floats if stage.divisive is not None]:
        raise ValueError(
            f"{', '.join(dividing)} divide by a current that changes with each input, which no node of NIR can; hold "
            "the divisors at their mean first: eisnn.deploy.hold(model, images) (eisnn export --format nir does)"
        )
    size: tuple[int, ...] = sample_shape
    chain: dict[str, Any] = {"input": nir.Input({"input": np.array(size)})}

    def flatten() -> tuple[int, ...]:
        chain[f"{stage.name}.flatten"] = nir.Flatten({"input": np.array(size)}, start_dim=0)
        return (int(np.prod(size)),)

    for stage in floats:
        if stage.neuron is None and len(size) == 3 and stage.kernel.shape[1] == size[0]:  # the mean over positions
            chain[f"{stage.name}.average"] = nir.AvgPool2d(np.array(size[1:]), np.array(size[1:]), np.array((0, 0)))
            size = (size[0], 1, 1)
        if stage.connection.spatial == 0 and len(size) == 3:
            size = flatten()
        chain[stage.name], size = _projection(nir, stage, size)
        if stage.neuron is not None:
            chain[f"{stage.name}.neuron"] = _neuron(nir, stage.neuron, size)
        if stage.pooled:
            two = np.array((2, 2))
            chain[f"{stage.name}.pool"] = nir.AvgPool2d(two, two, np.array((0, 0)))
            size = (size[0], size[1] // 2, size[2] // 2)
    chain["output"] = nir.Output({"output": np.array(size)})
    names = list(chain)
    return nir.NIRGraph(chain, list(pairwise(names)), type_check=False)


def write_nir(model: nn.Module, sample_shape: tuple[int, int, int], file: Path) -> Path:
    """Write `nir_graph(model, sample_shape)`."""
    graph = nir_graph(model, sample_shape)
    require_writable(file)
    library("nir", "nir").write(str(file), graph)
    return file


def _projection(nir: Any, stage: Stage, size: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    weight, bias = stage.kernel.numpy(), stage.bias.numpy()
    connection = stage.connection
    if not isinstance(connection, EF.Conv):
        return nir.Affine(weight, bias) if bias.any() else nir.Linear(weight), (len(weight),)
    geometry = connection.stride, connection.padding, connection.dilation
    node = nir.Conv2d(size[1:], weight, *geometry, 1, bias)
    return node, tuple(int(n) for n in node.output_type["output"])


def _neuron(nir: Any, constants: LIFConstants, size: tuple[int, ...]) -> Any:
    tau = np.full(size, constants.tau * STEP, np.float32)
    zero = np.zeros_like(tau)
    reset = {"reset": "subtract" if constants.reset == "soft" else "zero"}
    return nir.LIF(tau, tau / np.float32(STEP), zero, zero + np.float32(constants.theta), zero, metadata=reset)
