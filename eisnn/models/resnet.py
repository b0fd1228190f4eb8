"""SEW-ResNet (Fang et al. 2021): the residual is added after the neuron, so blocks pass on sums of spikes."""

from collections.abc import Sequence

from torch import Tensor, nn

from eisnn.models.network import Carry, SpikingNetwork, global_average, scaled
from eisnn.nn import Layers

BLOCKS: dict[str, Sequence[int]] = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
STAGE_CHANNELS = (64, 128, 256, 512)


class SEWBlock(nn.Module):
    """Two 3x3 layers; their spikes are added to the input, or to a 1x1 layer of it where the shape changes."""

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first = layers.conv(in_channels, channels, 3, stride=stride, padding=1)
        self.second = layers.conv(channels, channels, 3, padding=1)
        same = stride == 1 and in_channels == channels
        self.shortcut = None if same else layers.conv(in_channels, channels, 1, stride=stride)

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        """`[T, B, C, H, W]` -> `[T, B, C', H', W']`, sums of spikes."""
        y = carry(self.second, carry(self.first, x, time_steps), time_steps)
        return y + (x if self.shortcut is None else carry(self.shortcut, x, time_steps))


class SEWResNet(SpikingNetwork):
    """SEW-ResNet for small images: 3x3 stem without max pooling, four stages of basic blocks, global average.

    Args:
        blocks: how many blocks each stage has.
        layers: the layer factory.
        width: multiplies the channels 64-128-256-512.
        in_channels, num_classes, time_steps: see `SpikingNetwork`.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        layers: Layers,
        in_channels: int,
        num_classes: int,
        time_steps: int,
        width: float = 1.0,
    ) -> None:
        super().__init__(in_channels, num_classes, time_steps)
        stages = [scaled(c, width) for c in STAGE_CHANNELS]
        self.stem = layers.conv(in_channels, stages[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        channels = stages[0]
        for stage, (out, count) in enumerate(zip(stages, blocks, strict=True)):
            for i in range(count):
                self.blocks.append(SEWBlock(layers, channels, out, stride=2 if stage > 0 and i == 0 else 1))
                channels = out
        self.readout = layers.readout(channels, num_classes)

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        x = carry(self.stem, x, self.time_steps)
        for block in self.blocks:
            x = block(x, carry, self.time_steps)
        return global_average(x)
