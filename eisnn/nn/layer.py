"""The contract of a layer, and what its implementations share.

Everything outside of this room asks a `SpikingLayer` what it needs to know; nothing asks which class a layer is.
"""

import copy
from math import inf
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn import ops
from eisnn.functional.checks import check_int, check_steps, is_int
from eisnn.nn.neurons import LIF, PLIF

Size = int | tuple[int, int]
Pair = tuple[int, int]


class Pathway(NamedTuple):
    """One projection of a layer, to count its operations and to time it alone.

    Args:
        name: such as "E->I".
        weight: `[targets, sources, ...]`; one row where all targets share a current.
        connection: how it projects; None is a lateral projection, from one population of the layer to another at the
            same position.
    """

    name: str
    weight: Tensor
    connection: ops.Connection | None


class Product(NamedTuple):
    """One product of activities in a layer, which has no weights: additions, as its factors are spikes.

    Args:
        name: such as "K^T V".
        dense: multiply-adds for all images and time steps of an input.
        effective: those of them where no factor is 0.
    """

    name: str
    dense: float
    effective: float


class NonFiniteActivity(RuntimeError):
    """What a network or layer receives is NaN or infinite, or negative where it must not be."""


def assert_values(fit: Tensor, message: str) -> None:
    """Raise NonFiniteActivity with this message unless `fit` `[]` is true; on CUDA, where the host waits for nothing,
    and within what torch compiles it is torch's own assertion. What is exported has none."""
    if ops.exporting():
        return
    if fit.is_cuda or torch.compiler.is_compiling():
        torch._assert_async(fit, message)
        return
    try:
        torch._assert_async(fit, message)
    except RuntimeError as error:
        if message not in str(error):  # such as a transform that has no rule for it
            raise
        raise NonFiniteActivity(message) from None


class SpikingLayer(nn.Module):
    """Base of every layer: the contract that models, training, recording, reports, folding, checks and costs rely on.

    A layer is called as `layer(x, time_steps=None, state=None, return_state=False)`. It takes sequences `[T, B, ...]`,
    or `[1, B, ...]` with `time_steps=T` for an input that is the same at each step, whose currents are computed once.
    It returns the output of its neurons, `[T, B, ...]`, or (that, state) with `return_state`.

    A subclass writes `receives` and `respond`, and overrides below what its circuit does otherwise than a projection
    whose currents `neuron` integrates.

    Attributes:
        neuron: module that makes spikes of the current `I_E`; None returns the current.
        hidden: whether the layer may end in neurons; a readout does not.
        non_negative: whether a negative input is an error.
        initialized: whether the weights may be used; where it is False, `eisnn.ei_init_` has to fill them.
        data_driven: whether `eisnn.ei_init_` fills it; the way is registered in `eisnn.init.fill_`.
        measured: names of its options whose values E-I Init measures from data, "even_gradients" among them where it
            sets the width of the surrogate.
        dale_parameters: names of the parameters that Dale's law keeps >= 0 (`eisnn.nn.dale`).
        lateral_parameters: names of the weights from one population of the layer to another, or to itself.
        inference_only: whether it has no weights to train, as a folded layer.
    """

    neuron: nn.Module | None
    hidden: ClassVar[bool] = True
    non_negative: ClassVar[bool] = False
    data_driven: bool = False
    initialized: bool = True
    measured: tuple[str, ...] = ()
    dale_parameters: ClassVar[tuple[str, ...]] = ()
    lateral_parameters: ClassVar[tuple[str, ...]] = ()
    inference_only: ClassVar[bool] = False

    @property
    def receives(self) -> tuple[int, int]:
        """Number of axes of the input (3: `[T, B, features]`; 5: `[T, B, C, H, W]`), and features or channels."""
        raise NotImplementedError(f"{type(self).__name__} defines no receives")

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        """Output and new state for the checked input `x`; state is asked for with `return_state` only."""
        raise NotImplementedError(f"{type(self).__name__} defines no respond()")

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """Run the layer over a sequence.

        Args:
            x: `[T, B, ...]`; or `[1, B, ...]` with `time_steps=T` for an input that is the same at each step.
            time_steps: T >= 1; an error if `x` has another number of steps (it catches `[B, T, ...]`).
            state: the layer's state before the first step, as returned; None is the start of a sequence. That of `LIF`
                is a tensor `[B, n_E, ...]`, the shape of one step of the output.
            return_state: also return the state after the last step.
        Returns: spikes `[T, B, n_E, ...]` in {0, 1} (the current `I_E` with `neuron=None`), or (spikes, state).
        Raises: RuntimeError before E-I Init, for a layer that needs it, and for a folded layer in training; ValueError
            for a wrong shape of `x` or of the state; TypeError for another dtype than that of the weights (under
            autocast any floating-point one serves), and for a state asked of a neuron that keeps none.
        """
        self.check_input(x, time_steps)
        out, state = self.respond(x, time_steps, state, return_state)
        return (out, state) if return_state else out

    def check_input(self, x: Tensor, time_steps: int | None) -> None:
        """Raise unless `forward` can take `x`."""
        name = type(self).__name__
        check_sequence(x, *self.receives, time_steps, name)
        check_dtype(x, self.dtype, name)
        if not self.initialized:
            raise RuntimeError(
                f"this {name} was never initialised: call eisnn.ei_init_(model, first_batch) once, or load a checkpoint"
            )
        if self.inference_only and self.training and torch.is_grad_enabled():
            raise RuntimeError(
                f"this {name} is for inference only and cannot be trained: call model.eval() to run it, or train the "
                "network that it was made from"
            )
        # On a CPU it takes a few thousandths of the layer's time, on CUDA launches. In training only the entry of the
        # network is looked at: what becomes NaN inside reaches the loss.
        looked_at = not x.requires_grad if torch.is_grad_enabled() else x.device.type == "cpu"
        if self.non_negative and looked_at:
            smallest, largest = x.detach().aminmax()
            assert_values(
                (smallest >= 0) & (largest < inf),
                f"the input of an E-I network must be >= 0 and finite, see {name} (eisnn.check finds why)",
            )

    # What others ask.

    @property
    def dtype(self) -> torch.dtype | None:
        """Of its weights; None for a layer without."""
        weight = next(self.parameters(), None)
        return None if weight is None else weight.dtype

    @property
    def feeds_back(self) -> bool:
        """Whether its spikes change its later currents, so that `dL/dI_E` is more than what comes from above."""
        return False

    def potential(self, state: Any) -> Tensor:
        """The membrane potential in a `state` of the layer, the tensor that the state of `LIF` is."""
        return state

    @property
    def rate_coded(self) -> bool:
        """Whether its units are without spikes, leak and state."""
        return isinstance(self.neuron, nn.ReLU)

    @property
    def surrogate(self) -> LIF | PLIF:
        """The neuron whose surrogate has a width, which even gradients set; ValueError if there is none."""
        neuron = self.neuron
        if not isinstance(neuron, LIF | PLIF) or neuron.constants.surrogate == "leaky_relu":
            raise ValueError(
                f"even_gradients sets the width of the surrogate of LIF neurons; got neuron {neuron}, which has none: "
                "give eisnn.LIF() with another surrogate than leaky_relu, or even_gradients=False"
            )
        return neuron

    @property
    def watched(self) -> nn.Module:
        """The module whose calls show what happens in the layer: by default its neuron, which takes `I_E` and gives
        spikes. Where neurons are fused with what comes before it is the layer."""
        return self if self.neuron is None else self.neuron

    def quantities(self) -> tuple[str, ...]:
        """Names of what `measure` returns; `I_E` among them."""
        return ("I_E",)

    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        """The `quantities` in one call of `watched` with input `x` and output `out`, each `[T or 1, B, n, ...]`."""
        return {"I_E": (out if self.neuron is None else x).detach()}

    def populations(self) -> dict[str, int]:
        """Number of neurons (channels) of each population by name, if the layer has several."""
        return {}

    @property
    def start_mean(self) -> float | None:
        """Mean of the input that E-I Init has scaled the layer to; None where the layer does not know, or its currents
        do not depend on it."""
        return None

    def synapses(self) -> EF.Synapses | None:
        """The weights with which a circuit acts, so that changing them perturbs it; None where there are none."""
        return None

    def folded(self) -> "SpikingLayer":
        """The layer for inference, a new one or itself without gradients; see `eisnn.fold`."""
        return self.requires_grad_(False)

    def pathways(self) -> list[Pathway]:
        """Its projections, those of its input first; by default all `nn.Conv2d` and `nn.Linear` inside, but for those
        of the neuron. NotImplementedError if there are none: a cost of 0 would be wrong."""
        found = [
            Pathway(name, module.weight, connection_of(module))
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("neuron.")
        ]
        if not found:
            raise NotImplementedError(f"{type(self).__name__} defines no pathways()")
        return found

    def products(self, x: Tensor) -> list[Product]:
        """The products of activities in one call with input `x`; by default none."""
        return []


def connection_of(projection: nn.Conv2d | nn.Linear) -> ops.Connection:
    """How a plain projection of torch's projects."""
    if isinstance(projection, nn.Linear):
        return ops.Dense()
    return ops.Conv(projection.stride, projection.padding, projection.dilation)  # type: ignore[arg-type]


def layers_of(model: nn.Module) -> dict[str, SpikingLayer]:
    """All layers of `model` by name, readouts included; a layer by itself has the name ""."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SpikingLayer)}


def uninitialized(model: nn.Module) -> list[str]:
    """Names of the layers in `model` that were never initialised; one by itself goes by its class."""
    return [name or type(layer).__name__ for name, layer in layers_of(model).items() if not layer.initialized]


def check_sizes(owner: str, kind: str, inputs: Any, outputs: Any) -> None:
    """Check the two sizes of a layer, `kind` "channels" or "features"."""
    check_int(owner, f"in_{kind}", inputs)
    check_int(owner, f"out_{kind}", outputs)


def pair(owner: str, name: str, size: Any, least: int) -> Pair:
    """(vertical, horizontal) of an argument that is one int or a pair of them."""
    sizes = size if isinstance(size, tuple | list) else (size, size)
    if len(sizes) != 2 or not all(is_int(n, least) for n in sizes):
        raise ValueError(
            f"{owner}: {name} must be an int >= {least} or a pair of them (vertical, horizontal), got {size!r}"
        )
    return int(sizes[0]), int(sizes[1])


def conv_geometry(
    owner: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Pair, Pair, Pair, Pair]:
    """The four arguments of a convolution as pairs; ValueError for what is none."""
    if isinstance(padding, str):
        raise ValueError(
            f"{owner}: padding must be an int >= 0 or a pair of them, got {padding!r}; at stride 1 an odd kernel_size "
            "keeps the size of the map with padding=dilation * (kernel_size - 1) // 2"
        )
    return (
        pair(owner, "kernel_size", kernel_size, 1),
        pair(owner, "stride", stride, 1),
        pair(owner, "padding", padding, 0),
        pair(owner, "dilation", dilation, 1),
    )


def copy_neuron(neuron: nn.Module | None) -> nn.Module | None:
    """Each layer has a neuron of its own; TypeError for what is no module."""
    if neuron is not None and not isinstance(neuron, nn.Module):
        raise TypeError(f"neuron must be a module, e.g. eisnn.LIF(), or None, got {neuron!r}")
    return copy.deepcopy(neuron)


def check_floating(x: Any, owner: str) -> None:
    """Raise TypeError unless `x` is a tensor of a floating-point dtype."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{owner} takes a floating-point tensor, got {given} (uint8 images: give images.float() / 255)")


def check_dtype(x: Tensor, dtype: torch.dtype | None, owner: str) -> None:
    """Raise TypeError unless `x` has the dtype of the weights, or autocast gives it one, which what is compiled does
    not know."""
    if dtype is None or x.dtype == dtype or torch.compiler.is_compiling():
        return
    if not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"the input of {owner} is {x.dtype}, its weights are {dtype}: give x.to({dtype}), or bring the network to "
            f"{x.dtype} (model.to({x.dtype}))"
        )


def check_sequence(x: Tensor, axes: int, inputs: int, time_steps: int | None, layer: str) -> None:
    """Raise ValueError unless `x` is `[T, B, inputs, ...]` with `axes` axes and T = `time_steps` (or 1: static)."""
    check_floating(x, layer)
    if x.ndim != axes:
        shape = "[T, B, C, H, W]" if axes == 5 else "[T, B, features]"
        raise ValueError(f"{layer} takes a sequence {shape}, got a tensor of shape {list(x.shape)}")
    if 0 in x.shape[:2]:
        raise ValueError(f"{layer} takes at least one time step and one image, got shape {list(x.shape)}")
    check_steps(layer, x.shape, time_steps)
    if x.shape[2] != inputs:
        raise ValueError(f"{layer} has {inputs} inputs, got {x.shape[2]} (shape {list(x.shape)})")
