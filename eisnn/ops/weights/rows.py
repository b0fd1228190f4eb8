"""Which back end does the row operations of exact balance."""

from torch import Tensor

from eisnn.ops import backends
from eisnn.ops.weights.torch import TorchRows

LARGEST = 1 << 14  # weights of one neuron that a program on a GPU can hold


def rows_of(weight: Tensor, taps: int, channels_inside: bool) -> TorchRows:
    """The operations on weights like `weight` `[n, ...]`, by Triton on a GPU and compiled on a CPU; arguments as
    `TorchRows`."""
    size, served = weight[0].numel(), backends.of_weights(weight)
    kind = TorchRows
    if served == "triton" and size <= LARGEST:
        from eisnn.ops.weights.triton import TritonRows

        kind = TritonRows
    elif served == "compiled":
        from eisnn.ops.weights.cpu import CompiledRows

        kind = CompiledRows
    return kind(len(weight), size, taps, channels_inside or taps == 1)
