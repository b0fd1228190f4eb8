"""VGG: 3x3 layers and 2x2 average pooling, then a readout."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from eisnn.models.network import Carry, SpikingNetwork, global_average, scaled
from eisnn.nn.registry import Layers
from eisnn.ops import average_pool

Plan = Sequence[int | Literal["P"]]


def stack(depth: int) -> Plan:
    """A plain stack of `depth` layers in four stages of 64 to 512 channels, each ended by a pooling: as deep as one
    likes, for the question how deep a circuit trains. `depth` is a multiple of 4."""
    plan: list[int | Literal["P"]] = []
    for channels in (64, 128, 256, 512):
        plan += [channels] * (depth // 4) + ["P"]
    return plan


# docs/science/method.md, section 8; numbers are channels, "P" halves the map.
PLANS: dict[str, Plan] = {
    "vgg8": (64, "P", 128, "P", 256, "P", 512, "P", 512, "P"),
    "vgg11": (64, "P", 128, "P", 256, 256, "P", 512, 512, "P", 512, 512, "P"),
    "vgg16": (64, 64, "P", 128, 128, "P", *(256,) * 3, "P", *(512,) * 3, "P", *(512,) * 3, "P"),
    "vgg19": (64, 64, "P", 128, 128, "P", *(256,) * 4, "P", *(512,) * 4, "P", *(512,) * 4, "P"),
    "stack20": stack(20),
    "stack40": stack(40),
    "stack80": stack(80),
    "convnet3": (32, "P", 64, "P", 128, "P"),
}


class VGG(SpikingNetwork):
    """Plain stack of 3x3 layers after a plan.

    What is left of the map after the last pooling (one pixel for inputs of 32x32 to 63x63 with five poolings) is
    averaged, so any size that the poolings allow will do.

    Args:
        plan: channels and "P", e.g. `PLANS["vgg8"]`.
        layers: the layer factory.
        width: multiplies the channels (0.25: quarter width).
        in_channels, num_classes, time_steps: see `SpikingNetwork`.
    """

    def __init__(
        self, plan: Plan, layers: Layers, in_channels: int, num_classes: int, time_steps: int, width: float = 1.0
    ) -> None:
        super().__init__(in_channels, num_classes, time_steps)
        self.min_size = 2 ** sum(entry == "P" for entry in plan)
        self.layers = nn.ModuleList()
        self.pool_after: set[int] = set()
        channels = in_channels
        for entry in plan:
            if entry == "P":
                self.pool_after.add(len(self.layers) - 1)
                continue
            out = scaled(entry, width)
            self.layers.append(layers.conv(channels, out, 3, padding=1))
            channels = out
        self.readout = layers.readout(channels, num_classes)

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = carry(layer, x, self.time_steps)
            if i in self.pool_after:
                x = average_pool(x)
        return global_average(x)
