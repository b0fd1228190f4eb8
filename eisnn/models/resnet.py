"""SEW-ResNet (Fang et al. 2021): the residual is added after the neuron, so blocks pass on sums of spikes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eisnn.models.network import Carry, SpikingNetwork, global_average, scaled
from eisnn.nn.registry import Layers

# Blocks of each stage, and whether they are bottlenecks.
BLOCKS: dict[str, tuple[Sequence[int], bool]] = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    # As deep as one likes, for the question how deep a circuit trains; narrow ones do (`width=1/16`).
    "resnet82": ((10,) * 4, False),
    "resnet1002": ((125,) * 4, False),
}
STAGE_CHANNELS = (64, 128, 256, 512)


class SEWBlock(nn.Module):
    """Two 3x3 layers; their spikes are added to the input, or to a 1x1 layer of it where the shape changes.

    Args:
        layers: the layer factory.
        in_channels, channels: of input and output.
        stride: of the first layer and of the shortcut.
        drop: in training, probability that the two layers are left out for an image, at all its time steps.
    """

    expansion = 1  # channels of the output for each of `channels`

    def __init__(self, layers: Layers, in_channels: int, channels: int, stride: int, drop: float = 0.0) -> None:
        super().__init__()
        self.drop = drop
        self._make_branch(layers, in_channels, channels, stride)
        out = channels * self.expansion
        same = stride == 1 and in_channels == out
        self.shortcut = None if same else layers.conv(in_channels, out, 1, stride=stride)

    def _make_branch(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        self.first = layers.conv(in_channels, channels, 3, stride=stride, padding=1)
        self.second = layers.conv(channels, channels, 3, padding=1)

    def _branch(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        return carry(self.second, carry(self.first, x, time_steps), time_steps)

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        """`[T, B, C, H, W]` -> `[T, B, C', H', W']`, sums of spikes."""
        y = self._branch(x, carry, time_steps)
        if self.training and self.drop:
            y = y * kept_branches(y.shape[1], self.drop).to(y)[:, None, None, None]
        return y + (x if self.shortcut is None else carry(self.shortcut, x, time_steps))


class SEWBottleneck(SEWBlock):
    """A 1x1, a 3x3 and a 1x1 layer with four times the channels, instead of two 3x3 layers."""

    expansion = 4

    def _make_branch(self, layers: Layers, in_channels: int, channels: int, stride: int) -> None:
        self.first = layers.conv(in_channels, channels, 1)
        self.second = layers.conv(channels, channels, 3, stride=stride, padding=1)
        self.third = layers.conv(channels, channels * self.expansion, 1)

    def _branch(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        return carry(self.third, super()._branch(x, carry, time_steps), time_steps)


def kept_branches(images: int, drop: float) -> Tensor:
    """What a branch is multiplied by for each image, `[images]`: 0 with probability `drop`, else 1 / (1 - drop), which
    keeps its mean. Drawn on the CPU, from the generator that checkpoints keep."""
    return (torch.rand(images) >= drop) / (1 - drop)


class SEWResNet(SpikingNetwork):
    """SEW-ResNet for small images: 3x3 stem without max pooling, four stages of blocks, global average.

    Args:
        blocks: how many blocks each stage has, and whether they are bottlenecks; e.g. `BLOCKS["resnet18"]`.
        layers: the layer factory.
        width: multiplies the channels 64-128-256-512.
        in_channels, num_classes, time_steps: see `SpikingNetwork`.
        stochastic_depth: in [0, 1): in training the last block is left out for an image with this probability, and
            earlier ones with one that rises linearly with depth (Huang et al. 2016). What is kept is scaled up by
            1 / (1 - probability), so that nothing changes in evaluation; E-I Init wants that mode.
    Raises: ValueError if `stochastic_depth` is out of range.
    """

    def __init__(
        self,
        blocks: tuple[Sequence[int], bool],
        layers: Layers,
        in_channels: int,
        num_classes: int,
        time_steps: int,
        width: float = 1.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__(in_channels, num_classes, time_steps)
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"stochastic_depth is a probability in [0, 1), got {stochastic_depth}")
        stages = [scaled(c, width) for c in STAGE_CHANNELS]
        counts, kind = blocks[0], SEWBottleneck if blocks[1] else SEWBlock
        self.stem = layers.conv(in_channels, stages[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        channels = stages[0]
        for stage, (out, count) in enumerate(zip(stages, counts, strict=True)):
            for i in range(count):
                drop = stochastic_depth * (len(self.blocks) + 1) / sum(counts)
                self.blocks.append(kind(layers, channels, out, 2 if stage > 0 and i == 0 else 1, drop))
                channels = out * kind.expansion
        self.readout = layers.readout(channels, num_classes)

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        x = carry(self.stem, x, self.time_steps)
        for block in self.blocks:
            x = block(x, carry, self.time_steps)
        return global_average(x)
