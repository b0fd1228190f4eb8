"""Spiking transformers: maps become tokens by convolutions, blocks of attention and two layers for each token follow.

Spikformer (Zhou et al., ICLR 2023) and QKFormer (Zhou et al., NeurIPS 2024), of any kind of layer. A layer for each
token by itself is a 1x1 convolution; queries, keys and values are one layer. As in SEW-ResNet spikes are added after
the neurons. Maps are halved by max pooling of spikes (a position fires if one of 3x3 does), in Spikformer as published;
QKFormer pools the currents before the neurons, which at a single time step is the same.
"""

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.models.network import Carry, SpikingNetwork, global_average, scaled
from eisnn.models.vgg import Plan
from eisnn.nn.attention import AttentionKind, SelfAttention, TokenAttention
from eisnn.nn.registry import Layers

MLP_RATIO = 4  # hidden neurons of a token for each of its channels


class Stage(NamedTuple):
    """Maps of one size: an embedding and the blocks behind it.

    Args:
        before: plan of the 3x3 layers that come first, in which "P" halves the map.
        branch: plan of those with a way around: a 1x1 layer where they change the shape, else nothing.
        blocks: how many.
        heads: of each attention; they divide the channels.
        attention: "self" attends to all tokens, "token" only chooses some (QKFormer).
    """

    before: Plan
    branch: Plan
    blocks: int
    heads: int
    attention: Literal["self", "token"] = "self"


# Names: blocks and channels of the last stage, as published.
TRANSFORMERS: dict[str, tuple[Stage, ...]] = {
    "spikformer": (Stage((48, 96, 192, "P", 384, "P"), (384,), 4, 12),),  # 4-384, of CIFAR
    "spikformer-2-256": (Stage((32, "P", 64, "P", 128, "P", 256, "P"), (256,), 2, 16),),  # of CIFAR10-DVS
    "spikformer-2-64": (Stage((16, 32, "P", 64, "P"), (64,), 2, 4),),  # ours, for a single core
    "qkformer": (  # 4-384, of CIFAR
        Stage((48,), (96,), 1, 8, "token"),
        Stage((), (192, 192, "P"), 1, 8, "token"),
        Stage((), (384, 384, "P"), 2, 8),
    ),
}


def last_channels(plan: Plan, channels: int) -> int:
    """Of what a plan makes of maps with so many `channels`."""
    return next((n for n in reversed(plan) if n != "P"), channels)


class ConvStack(nn.Module):
    """3x3 layers after a plan, as those of a VGG but for the pooling."""

    def __init__(self, plan: Plan, layers: Layers, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.pool_after: set[int] = set()
        for entry in plan:
            if entry == "P":
                self.pool_after.add(len(self.layers) - 1)
            else:
                self.layers.append(layers.conv(channels, entry, 3, padding=1))
                channels = entry

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = carry(layer, x, time_steps)
            if i in self.pool_after:
                x = F.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2])
        return x


class Embedding(nn.Module):
    """The maps of a stage: 3x3 layers, and more of them with a way around."""

    def __init__(self, stage: Stage, layers: Layers, channels: int) -> None:
        super().__init__()
        self.before = ConvStack(stage.before, layers, channels)
        channels = last_channels(stage.before, channels)
        self.branch = ConvStack(stage.branch, layers, channels)
        out = last_channels(stage.branch, channels)
        stride = 2 ** len(self.branch.pool_after)
        self.around = None if (channels, stride) == (out, 1) else layers.conv(channels, out, 1, stride=stride)

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        x = self.before(x, carry, time_steps)
        return self.branch(x, carry, time_steps) + (x if self.around is None else carry(self.around, x, time_steps))


class TransformerBlock(nn.Module):
    """Attention and two layers of each token, both with a way around: sums of spikes go on.

    Args:
        layers: the layer factory.
        channels: of each token.
        heads, attention: of the stage.
        kind: of the attention's scale.
    """

    def __init__(
        self, layers: Layers, channels: int, heads: int, attention: Literal["self", "token"], kind: AttentionKind
    ) -> None:
        super().__init__()
        self.gated, parts = attention == "token", {"token": 2, "self": 3}[attention]
        self.projection = layers.conv(channels, parts * channels, 1)  # queries, keys and, of "self", values
        make = TokenAttention if self.gated else SelfAttention
        self.attention = make(channels, heads, kind, layers.neuron)
        self.out = layers.conv(channels, channels, 1)
        self.hidden = layers.conv(channels, MLP_RATIO * channels, 1)
        self.mixed = layers.conv(MLP_RATIO * channels, channels, 1)

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        """`[T, B, C, H, W]` -> `[T, B, C, H, W]`, sums of spikes."""
        y = carry(self.projection, x, time_steps)
        if self.gated:
            queries, keys = y.chunk(2, 2)
            gates = carry(self.attention, queries, time_steps)
            y = (keys.unflatten(2, (gates.shape[2], -1)) * gates.unsqueeze(3)).flatten(2, 3)
        else:
            y = carry(self.attention, y, time_steps)
        x = x + carry(self.out, y, time_steps)
        return x + carry(self.mixed, carry(self.hidden, x, time_steps), time_steps)


class TransformerStage(nn.Module):
    """Embedding and blocks; arguments as of `TransformerBlock`, `channels` those of the input."""

    def __init__(self, stage: Stage, layers: Layers, channels: int, kind: AttentionKind) -> None:
        super().__init__()
        self.embedding = Embedding(stage, layers, channels)
        channels = last_channels(stage.branch, channels)
        blocks = (TransformerBlock(layers, channels, stage.heads, stage.attention, kind) for _ in range(stage.blocks))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, carry: Carry, time_steps: int) -> Tensor:
        x = self.embedding(x, carry, time_steps)
        for block in self.blocks:
            x = block(x, carry, time_steps)
        return x


class SpikingTransformer(SpikingNetwork):
    """Stages of embedding and blocks, the average over tokens, a readout.

    Args:
        stages: e.g. `TRANSFORMERS["spikformer"]`.
        layers: the layer factory.
        width: multiplies all channels; those of tokens stay a multiple of their heads.
        attention: scale of the attention, "fixed" as published, "gain" or "divisive" (see `eisnn.nn.attention`).
        in_channels, num_classes, time_steps: see `SpikingNetwork`.
    """

    def __init__(
        self,
        stages: tuple[Stage, ...],
        layers: Layers,
        in_channels: int,
        num_classes: int,
        time_steps: int,
        width: float = 1.0,
        attention: AttentionKind = "fixed",
    ) -> None:
        super().__init__(in_channels, num_classes, time_steps)
        self.stages = nn.ModuleList()
        channels = in_channels
        for stage in (_scaled(stage, width) for stage in stages):
            self.stages.append(TransformerStage(stage, layers, channels, attention))
            channels = last_channels(stage.branch, channels)
        self.readout = layers.readout(channels, num_classes)

    def features(self, x: Tensor, carry: Carry) -> Tensor:
        for stage in self.stages:
            x = stage(x, carry, self.time_steps)
        return global_average(x)


def _scaled(stage: Stage, width: float) -> Stage:
    """With `width` times the channels, those of the tokens a multiple of the heads."""
    tokens = max(n for n in stage.branch if n != "P")

    def channels(n: int | Literal["P"]) -> int | Literal["P"]:
        if n == "P":
            return n
        return stage.heads * scaled(n // stage.heads, width) if n == tokens else scaled(n, width)

    return stage._replace(before=[channels(n) for n in stage.before], branch=[channels(n) for n in stage.branch])
