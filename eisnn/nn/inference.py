"""Inference: a separate network whose circuits hold their folded weights (and whose normalizations are merged where
they can be)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from eisnn import functional as EF
from eisnn import ops
from eisnn.nn.layer import Pathway, SpikingLayer, layers_of, uninitialized
from eisnn.nn.neurons import check_stateless, fusable, run_neuron


class FoldedCircuit(SpikingLayer):
    """An E-I circuit for inference: called as the one it comes from, with the same output; it holds buffers and
    nothing that could be trained."""

    non_negative = True
    inference_only = True
    kernel: Tensor

    def __init__(self, connection: ops.Connection, kernel: Tensor, tonic: bool = False, **buffers: Tensor) -> None:
        super().__init__()
        self.connection, self.tonic = connection, tonic
        for name, value in {"kernel": kernel, **buffers}.items():
            self.register_buffer(name, value.detach().clone())

    @property
    def receives(self) -> tuple[int, int]:
        return 3 + self.connection.spatial, self.kernel.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.kernel.dtype

    def project(self, x: Tensor) -> Tensor:
        """The stacked currents of `x`."""
        currents = self.connection.feedforward(x, self.kernel)
        if self.tonic:  # the last I neuron is always active
            currents.select(2, -1).fill_(1)
        return currents

    def folded(self) -> SpikingLayer:
        return self

    def pathways(self) -> list[Pathway]:
        return [Pathway("folded", self.kernel, self.connection)]


class FoldedLayer(FoldedCircuit):
    """A hidden circuit for inference: the stacked kernel `[W; W_IE]` and `M = W_EI diag(g_I)`, made once; `division` is
    how it divides."""

    weight: Tensor
    gain_e: Tensor
    bias: Tensor

    def __init__(
        self,
        connection: ops.Connection,
        kernel: Tensor,
        weight: Tensor,
        gain_e: Tensor,
        bias: Tensor,
        neuron: nn.Module | None,
        tonic: bool = False,
        division: EF.Division = EF.EXACT,
    ) -> None:
        super().__init__(connection, kernel, tonic, weight=weight, gain_e=gain_e, bias=bias)
        self.neuron, self.division = neuron, division

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        currents, gain_e, bias = self.project(x), self.gain_e, self.bias
        if fusable(self.neuron) and self.division == EF.EXACT:
            constants = self.neuron.constants
            return ops.population(currents, self.weight, gain_e, bias, constants, state, time_steps, tonic=self.tonic)
        i_e = EF.integrate(*ops.split_currents(currents, self.weight), gain_e, bias, self.division)
        return run_neuron(self.neuron, i_e, time_steps, state, return_state)

    @property
    def watched(self) -> nn.Module:
        return self

    def quantities(self) -> tuple[str, ...]:
        """Of the currents, the two that are subtracted are lost."""
        return ("I_div", "I_E", "undivided")

    @torch.no_grad()
    def measure(self, x: Tensor, out: Tensor) -> dict[str, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            balanced, i_div = ops.split_currents(self.project(x.to(self.kernel.dtype)), self.weight)
            i_e = EF.integrate(balanced, i_div, self.gain_e, self.bias, self.division)
        return {"I_div": i_div, "I_E": i_e, "undivided": EF.undivided(balanced, i_div)}

    def pathways(self) -> list[Pathway]:
        return [*super().pathways(), Pathway("I->E, divisive", self.weight, None)]


class FoldedReadout(FoldedCircuit):
    """A readout for inference: the signed kernel `W`, made once."""

    hidden = False
    neuron = None

    def respond(self, x: Tensor, time_steps: int | None, state: Any, return_state: bool) -> tuple[Tensor, Any]:
        check_stateless(state, type(self).__name__)
        return self.project(x), None


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A separate network for inference with folded weights (M7); `model` stays as it is.

    `W_EE - W_EI W_IE` is formed once instead of at every call, and the weights it came from are dropped. The output of
    E-I networks is the same; batch norms are merged with their running statistics, equal up to rounding. Layers whose
    normalization differs from step to step stay as they are, in evaluation mode and without gradients.

    Args:
        model: any module with spiking layers in it, initialised; or such a layer itself.
    Returns: a copy in evaluation mode. It cannot be trained, and further training of `model` does not reach it. What
        is folded already is copied as it is.
    Raises: RuntimeError for a circuit that was never initialised; ValueError if there is nothing to fold, or a mask on
        it.
    """
    if names := uninitialized(model):
        raise RuntimeError(
            f"{', '.join(names)} was never initialised: call eisnn.ei_init_ or load a checkpoint before fold"
        )
    if prune.is_pruned(model):
        raise ValueError(
            f"{type(model).__name__} has masks of torch.nn.utils.prune; make them permanent before fold, by "
            "prune.remove(module, name)"
        )
    if not layers_of(model):
        raise ValueError(f"{type(model).__name__} has no E-I or batch-norm layer to fold")
    return _folded(copy.deepcopy(model), {}).eval()


def _folded(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """`module` with its layers folded, in place; `done` keeps a module of several names one and the same."""
    if module in done:
        return done[module]
    if isinstance(module, SpikingLayer):
        done[module] = module.folded()
        return done[module]
    done[module] = module
    for name, child in list(module._modules.items()):  # named_children() leaves out second names
        if child is not None:
            setattr(module, name, _folded(child, done))
    return module
