"""Multi-layer perceptron on flattened images."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from eisnn.functional.checks import check_int
from eisnn.models.network import Carry, SpikingNetwork, scaled
from eisnn.nn.registry import Layers


class MLP(SpikingNetwork):
    """Fully connected layers and a readout.

    Args:
        hidden: neurons of each hidden layer.
        layers: the layer factory.
        image_size: height and width of the input, fixed by the first layer's weights.
        width: multiplies `hidden`.
        in_channels, num_classes, time_steps: see `SpikingNetwork`.
    """

    def __init__(
        self,
        hidden: Sequence[int],
        layers: Layers,
        in_channels: int,
        num_classes: int,
        time_steps: int,
        width: float = 1.0,
        image_size: int = 32,
    ) -> None:
        super().__init__(in_channels, num_classes, time_steps)
        check_int(type(self).__name__, "image_size", image_size)
        self.image_size = image_size
        self.layers = nn.ModuleList()
        features = in_channels * image_size**2
        for n in hidden:
            out = scaled(n, width)
            self.layers.append(layers.linear(features, out))
            features = out
        self.readout = layers.readout(features, num_classes)

    def _as_sequence(self, x: Tensor) -> Any:
        x = super()._as_sequence(x)
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            raise ValueError(
                f"this MLP was built for {self.image_size}x{self.image_size} pixels, got {x.shape[-2]}x{x.shape[-1]}; "
                f"resize the images or create_model(..., image_size=...)"
            )
        return x

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        x = x.flatten(2)
        for layer in self.layers:
            x = carry(layer, x, self.time_steps)
        return x
