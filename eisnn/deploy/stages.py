"""A folded network as a list of stages, each one projection with its neurons: what integer inference, C and NIR are
made of."""

from dataclasses import dataclass

from torch import Tensor, nn

from eisnn import ops
from eisnn.functional import LIFConstants
from eisnn.models.mlp import MLP
from eisnn.models.vgg import VGG
from eisnn.nn import LIF, fold
from eisnn.nn.inference import FoldedCircuit, FoldedLayer
from eisnn.nn.layer import SpikingLayer, connection_of
from eisnn.nn.projection import LinearReadout, ProjectionLayer


@dataclass(frozen=True)
class Stage:
    """One layer of a folded network.

    Args:
        name: of the layer.
        connection: how it projects.
        kernel: `[n_E + n_I, ...]`, the signed kernel of the balanced current and below it that of the I neurons;
            without division `[n, ...]`.
        divisive: `M` `[n_E, n_I]`, which makes the divisive current; None where nothing divides.
        tonic: the current of the last I neuron is 1.
        gain, bias: `[n_E]`, of the current that has been divided.
        neuron: None for the readout.
        pooled: the spikes are averaged over 2x2 positions.
    """

    name: str
    connection: ops.Connection
    kernel: Tensor
    divisive: Tensor | None
    tonic: bool
    gain: Tensor
    bias: Tensor
    neuron: LIFConstants | None
    pooled: bool = False


def stages(model: nn.Module, sample_shape: tuple[int, int, int]) -> list[Stage]:
    """The stages of a VGG or an MLP, the readout last; VGGs average over all positions before it.

    Args:
        model: initialised; folded or not.
        sample_shape: channels, height and width of its images.
    Raises: ValueError for another kind of network, one whose neurons are not `LIF` or whose layers cannot be folded to
        one projection, images that it does not take, or batch norms that never saw a batch; RuntimeError if it was
        never initialised.
    """
    if not isinstance(model, VGG | MLP):
        raise ValueError(
            f"integer inference, C and NIR take VGG and MLP networks, got {type(model).__name__}, which adds spikes or "
            "does something else; export it as onnx or torch"
        )
    smallest, channels = model.min_size, model.in_channels
    if len(sample_shape) != 3 or sample_shape[0] != channels or min(sample_shape[1:]) < smallest:
        raise ValueError(
            f"this network takes images of {channels} channels, at least {smallest} pixels high and wide, such as "
            f"({channels}, {max(smallest, 32)}, {max(smallest, 32)}); got {sample_shape}"
        )
    folded = fold(model)
    assert isinstance(folded, VGG | MLP)
    pooled = folded.pool_after if isinstance(folded, VGG) else set()
    found = [_stage(f"layers.{k}", layer, k in pooled) for k, layer in enumerate(folded.layers)]
    require_trained(model)
    return [*found, _stage("readout", folded.readout, False)]


def require_trained(model: nn.Module) -> None:
    """ValueError if batch norms of `model` never saw a batch: it would be merged with statistics of nothing. What is
    folded already no longer shows it."""
    batches = {name: getattr(m, "num_batches_tracked", None) for name, m in model.named_modules()}
    if new := [name for name, seen in batches.items() if seen is not None and int(seen) == 0]:
        raise ValueError(
            f"{', '.join(new)} never saw a batch, so that there are no running statistics to merge: train the network, "
            "or load a checkpoint"
        )


def _stage(name: str, layer: nn.Module, pooled: bool) -> Stage:
    if not isinstance(layer, FoldedCircuit | ProjectionLayer | LinearReadout) or (
        isinstance(layer, ProjectionLayer) and type(layer) is not ProjectionLayer
    ):
        raise ValueError(f"{name} is a {type(layer).__name__}, which does not fold into one projection at all steps")
    neuron = _neuron(name, layer)
    if isinstance(layer, FoldedLayer):
        parts = layer.kernel, layer.weight, layer.tonic, layer.gain_e, layer.bias
        return Stage(name, layer.connection, *parts, neuron, pooled)
    if isinstance(layer, FoldedCircuit):
        connection, kernel, bias = layer.connection, layer.kernel, None
    else:
        projection = layer.projection if isinstance(layer, ProjectionLayer) else layer
        connection, kernel, bias = connection_of(projection), projection.weight, projection.bias
    ones = kernel.new_ones(len(kernel))
    bias = 0 * ones if bias is None else bias.detach()
    return Stage(name, connection, kernel.detach(), None, False, ones, bias, neuron, pooled)


def _neuron(name: str, layer: SpikingLayer) -> LIFConstants | None:
    if not layer.hidden or name == "readout":
        return None
    if type(layer.neuron) is not LIF:
        raise ValueError(f"the neurons of {name} must be LIF, got {layer.neuron}; export the network as onnx or torch")
    return layer.neuron.constants
