"""Inference: a separate network whose circuits hold their folded weights (and whose normalizations are merged where
they can be)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.nn.baselines import ProjectionLayer
from eisnn.nn.circuit import EILayer, EIReadout, uninitialized
from eisnn.nn.dann import DANNLayer, dann_response, run_unit
from eisnn.nn.layer import check_sequence, check_stateless, layer_output, run_neuron
from eisnn.nn.lif import LIF


class FoldedCircuit(nn.Module):
    """An E-I circuit for inference: called as the one it comes from, with the same output; it holds buffers and
    nothing that could be trained."""

    kernel: Tensor

    def __init__(self, connection: EF.Connection, kernel: Tensor, tonic: bool = False) -> None:
        super().__init__()
        self.connection, self.tonic = connection, tonic
        self.register_buffer("kernel", kernel.detach().clone())

    def _project(self, x: Tensor, time_steps: int | None) -> Tensor:
        """The currents of `x`, whose shape is checked."""
        check_sequence(x, 3 + self.connection.spatial, self.kernel.shape[1], time_steps, type(self).__name__)
        currents = self.connection.feedforward(x, self.kernel)
        if self.tonic:  # the last I neuron is always active
            currents.select(2, -1).fill_(1)
        return currents


class FoldedLayer(FoldedCircuit):
    """An `EILayer` for inference: the stacked kernel `[W; W_IE]` and `M = W_EI diag(g_I)`, made once."""

    weight: Tensor
    gain_e: Tensor
    bias: Tensor

    def __init__(self, layer: EILayer) -> None:
        kernel, weight = layer.stacked()
        super().__init__(layer.connection, kernel, tonic=layer.weights.stacked.tonic)
        self.neuron = layer.neuron
        for name, value in [("weight", weight), ("gain_e", layer.gain_e), ("bias", layer.bias)]:
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """As `EILayer.forward`."""
        currents = self._project(x, time_steps)
        if isinstance(self.neuron, LIF):
            out, state = EF.population(
                currents,
                self.weight,
                self.gain_e,
                self.bias,
                self.neuron.constants,
                state,
                time_steps,
                tonic=self.tonic,
            )
        else:
            i_e = EF.integrate(*EF.split_currents(currents, self.weight), self.gain_e, self.bias)
            out, state = run_neuron(self.neuron, i_e, time_steps, state, return_state)
        return layer_output(out, state, return_state)


class FoldedReadout(FoldedCircuit):
    """An `EIReadout` for inference: the signed kernel `W`, made once."""

    def __init__(self, readout: EIReadout) -> None:
        super().__init__(readout.connection, EF.fold(readout.weight_ee, readout.weight_ie, readout.weight_ei))

    def forward(self, x: Tensor, time_steps: int | None = None, state: None = None, return_state: bool = False) -> Any:
        """As `EIReadout.forward`."""
        currents = self._project(x, time_steps)
        check_stateless(state, type(self).__name__)
        return layer_output(currents, None, return_state)


class FoldedDANN(FoldedCircuit):
    """A `DANNLayer` for inference: its stacked kernel and lateral weight, made once."""

    weight: Tensor
    gain_e: Tensor
    bias: Tensor

    def __init__(self, layer: DANNLayer) -> None:
        kernel, weight = layer.folded()
        super().__init__(layer.connection, kernel)
        self.neuron = layer.neuron
        for name, value in [("weight", weight), ("gain_e", layer.gain_e), ("bias", layer.bias)]:
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor, time_steps: int | None = None, state: Any = None, return_state: bool = False) -> Any:
        """As `DANNLayer.forward`."""
        z = dann_response(self._project(x, time_steps), self.weight, self.gain_e, self.bias)
        return layer_output(*run_unit(self.neuron, z, time_steps, state, return_state), return_state)


class MergedBNLayer(ProjectionLayer):
    """A layer for inference: one projection, the batch norm after it merged into its weight and bias."""

    def __init__(self, layer: ProjectionLayer) -> None:
        super().__init__(copy.deepcopy(layer.projection).requires_grad_(False), layer.neuron)
        affine = layer.affine()
        assert affine is not None
        scale, shift = affine
        weight, bias = self.projection.weight, self.projection.bias
        if bias is not None:
            shift = shift + scale * bias
        weight.copy_(weight * scale.view(-1, *(1,) * (weight.ndim - 1)))
        self.projection.bias = nn.Parameter(shift, requires_grad=False)


FOLDED: dict[type[nn.Module], type[nn.Module]] = {
    EILayer: FoldedLayer,
    EIReadout: FoldedReadout,
    DANNLayer: FoldedDANN,
    ProjectionLayer: MergedBNLayer,
}


@torch.no_grad()
def fold(model: nn.Module) -> nn.Module:
    """A separate network for inference with folded weights (METHOD 5); `model` stays as it is.

    `W_EE - W_EI W_IE` is formed once instead of at every call, and the weights it came from are dropped. The output of
    E-I networks is the same; batch norms are merged with their running statistics, equal up to rounding. Layers whose
    normalization differs from step to step stay as they are, in evaluation mode and without gradients.

    Args:
        model: any module with E-I or normalized layers in it, initialised; or such a layer itself.
    Returns: a copy in evaluation mode. It cannot be trained, and further training of `model` does not reach it. What
        is folded already is copied as it is.
    Raises: RuntimeError for a circuit that was never initialised; ValueError if there is nothing to fold.
    """
    if names := uninitialized(model):
        raise RuntimeError(
            f"{', '.join(names)} was never initialised: call eisnn.ei_init_ or load a checkpoint before fold"
        )
    folded = _folded(copy.deepcopy(model), {})
    if not any(isinstance(m, FoldedCircuit | ProjectionLayer) for m in folded.modules()):
        raise ValueError(f"{type(model).__name__} has no E-I or batch-norm layer to fold")
    return folded.eval()


def _folded(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """`module` with its layers folded, in place; `done` keeps a module of several names one and the same."""
    if module in done:
        return done[module]
    kind = next((kind for kind in FOLDED if isinstance(module, kind)), None)
    if isinstance(module, ProjectionLayer) and module.affine() is None:  # merged already, or never to be
        done[module] = module.requires_grad_(False)
        return module
    if kind is not None:
        done[module] = FOLDED[kind](module)
        return done[module]
    done[module] = module
    for name, child in list(module._modules.items()):  # named_children() leaves out second names
        if child is not None:
            setattr(module, name, _folded(child, done))
    return module
