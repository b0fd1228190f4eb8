"""Inference in integers alone: int8 weights, int32 sums, membranes in fixed point, reciprocals out of a table.

What is computed is defined here, bit for bit; `eisnn.deploy.c` writes the same as C. All is integer arithmetic, `>>`
rounds down, and `rounded(a, s) = (a + (1 << s >> 1)) >> s` rounds to the nearest; s counts as 0
below 0, where a current is far beyond the clip anyway, and as 61 above 61.

    x                         uint8, pixels 0 to 255 or sums of four spikes; their scale is inside of the weights
    a = K x                   int32, K int8 with a power-of-two scale for each row (one for all rows of I neurons)
    u = rounded(a_I, s)       current of the I neurons; the tonic one's is a constant
    d = M u                   int32 > 0, M int16 with one power-of-two scale; where d is 0 the smallest positive d of
                              the image and step stands in (adaptive stabilisation); without one the current is 0
    d = mantissa 2^e          r = table[the first bits of the mantissa below the leading 1], 16 bits
    I = clip(rounded(a_E g r, h + e)) + b      g 15 bits, h for each neuron; 64 bits; 2^12 is the threshold
    H = (V decay >> 15) + I   fires if H >= theta; soft or hard reset
    logits = sum over steps and positions of K x, plus b

Products of 64 bits are the only ones wider than 32: a_E has up to 31 bits, and g r up to 31.
"""

import json
from dataclasses import asdict, dataclass, field
from math import frexp, log2, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.deploy.stages import Stage, stages
from eisnn.files import require_writable, write_atomically
from eisnn.functional import Division

ONE = 1 << 12  # the potential 1, in fixed point
DECAY_BITS = 15
LIMIT = 1 << 24  # of a current: 4,096 thresholds
WEIGHT, DIVISIVE, GAIN = 127, (1 << 11) - 1, (1 << 15) - 1  # largest entries
FORMAT = "eisnn integer network 1"
TABLE = Division("lut")

Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class IntegerStage:
    """One layer. Sizes are those of its input and output maps; a dense layer has maps of one position.

    Args:
        inputs, outputs: channels, height, width; `outputs` before pooling.
        stride, padding, dilation: (vertical, horizontal).
        shift: `s` of the I neurons' currents.
        tonic: `u` of the last I neuron, 0 without one.
        exponent: `h` for each neuron, int32 `[n_E]`.
        decay, theta, hard: of the neurons; the readout has theta 0.
        pooled: whether spikes are summed over 2x2 positions.
        weight: int8 `[n_E + n_I, C, kh, kw]`.
        divisive: int16 `[n_E, n_I]`, the tonic neuron's last; `n_I = 0` where nothing divides.
        gain, bias: int32 `[n_E]`.
    """

    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    shift: int
    tonic: int
    decay: int
    theta: int
    hard: bool
    pooled: bool
    weight: Ints = field(repr=False)
    divisive: Ints = field(repr=False)
    gain: Ints = field(repr=False)
    exponent: Ints = field(repr=False)
    bias: Ints = field(repr=False)


ARRAYS = ("weight", "divisive", "gain", "exponent", "bias")


@dataclass(frozen=True)
class IntegerNetwork:
    """A network of integers for images `[C, H, W]` of uint8.

    Args:
        sample_shape: channels, height and width of its images.
        stages: the readout last.
        time_steps: T.
        division: of the reciprocals' table.
        logit_scale: multiplies the integer logits to give those of the network; no part of the arithmetic.
    """

    sample_shape: tuple[int, int, int]
    stages: tuple[IntegerStage, ...]
    time_steps: int
    division: Division
    logit_scale: float

    def __call__(self, images: Tensor) -> Tensor:
        """Logits int64 `[N, classes]` of `images` uint8 `[N, C, H, W]`.

        Raises: TypeError for other numbers, ValueError for other sizes.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"an integer network takes uint8 pixels 0 to 255, got {images.dtype}")
        if images.ndim != 4 or tuple(images.shape[1:]) != self.sample_shape:
            raise ValueError(f"this network takes images [N, {str(self.sample_shape)[1:-1]}], got {list(images.shape)}")
        x = images.long()[None]
        for stage in self.stages:
            x = _run(stage, x.reshape(*x.shape[:2], *stage.inputs), self.time_steps, self.division)
        return x

    def save(self, file: str | Path) -> None:
        """Write it as safetensors."""
        require_writable(file := Path(file))
        plain = [{k: v for k, v in asdict(s).items() if k not in ARRAYS} for s in self.stages]
        described = {"sample_shape": self.sample_shape, "stages": plain, "time_steps": self.time_steps}
        described |= {"division": asdict(self.division), "logit_scale": self.logit_scale}
        # safetensors writes buffers as they lie in memory, and kernels of trained networks are channels-last.
        arrays = {
            f"{k}.{name}": np.ascontiguousarray(getattr(s, name)) for k, s in enumerate(self.stages) for name in ARRAYS
        }
        write_atomically(file, save(arrays, {"format": FORMAT, "network": json.dumps(described)}))

    @staticmethod
    def load(file: str | Path) -> "IntegerNetwork":
        """Read what `save` wrote; ValueError naming the file if it is none."""
        try:
            with safe_open(file, "np") as opened:
                metadata = opened.metadata() or {}
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            described = json.loads(metadata["network"])
            found = tuple(
                IntegerStage(**_with_pairs(plain), **{name: arrays[f"{k}.{name}"] for name in ARRAYS})
                for k, plain in enumerate(described["stages"])
            )
            shape, division = tuple(described["sample_shape"]), Division(**described["division"])
            return IntegerNetwork(shape, found, described["time_steps"], division, described["logit_scale"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no integer network: {error}") from error


def _with_pairs(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


@torch.no_grad()
def integer(model: nn.Module, sample_shape: tuple[int, int, int], division: Division = TABLE) -> IntegerNetwork:
    """`model` in integers. No data decides anything: all ranges are bounds that hold for every image.

    Args:
        model: a VGG or an MLP with LIF neurons, initialised; folded or not; it takes pixels 0 to 255 divided by 255.
        sample_shape: channels, height and width of the images.
        division: "shift" or "lut".
    Raises: ValueError for another kind of network (`stages`), exact division, or numbers that fixed point cannot hold.
    """
    if Division.check(division).kind == "exact":
        raise ValueError("integers divide by shift or lut, not exactly")
    floats = stages(model, sample_shape)
    channels, height, width = sample_shape
    assert isinstance(model.time_steps, int)
    if model.answer_steps is not None:
        raise ValueError(
            f"integers sum the logits over all T; this network answers by the last {model.answer_steps} steps"
        )
    size, scale, largest, made = (channels, height, width), 1 / 255, 255, []
    for stage in floats:
        if stage.neuron is None:  # the mean over all positions
            scale, largest = scale / prod(size[1:]), largest * prod(size[1:])
        elif stage.connection.spatial == 0:
            size = (prod(size), 1, 1)
        one = _integer(stage, size, scale, largest, model.time_steps)
        made.append(one)
        size, scale, largest = one.outputs, 1.0, 1
        if stage.pooled:
            size, scale, largest = (size[0], size[1] // 2, size[2] // 2), 0.25, 4
    exponent = int(made[-1].exponent[0])
    return IntegerNetwork(
        (channels, height, width), tuple(made), model.time_steps, division, 2.0**-exponent / model.time_steps
    )


def _integer(stage: Stage, inputs: tuple[int, int, int], scale: float, largest: int, steps: int) -> IntegerStage:
    kernel = stage.kernel.double().numpy() * scale
    kernel = kernel.reshape(len(kernel), kernel.shape[1], *(kernel.shape[2:] or (1, 1)))
    if kernel.shape[1] != inputs[0]:
        raise ValueError(f"{stage.name} takes {kernel.shape[1]} inputs; images of this size give {inputs[0]}")
    n_e, readout = len(stage.bias), stage.neuron is None
    exponents = np.array([_exponent(row, WEIGHT) for row in kernel])
    exponents[n_e:] = exponents[n_e:].min(initial=99)
    if readout:
        exponents[:] = exponents.min()
    weight = np.rint(kernel * np.exp2(exponents)[:, None, None, None]).astype(np.int8)
    bound = np.abs(weight.astype(np.int64)).sum((1, 2, 3)) * largest
    _require(bound.max(initial=0) * (steps if readout else 1) < 1 << 31, stage, "sums do not fit into 32 bits")

    shift = tonic = 0
    divisive = np.zeros((n_e, 0), np.int16)
    gain_exponent = np.log2(np.ones(n_e)) - exponents[:n_e]  # of what multiplies a_E / d to give the current
    if stage.divisive is not None:
        lateral = stage.divisive.double().numpy()
        of_lateral = _exponent(lateral, DIVISIVE)
        divisive = np.rint(lateral * 2.0**of_lateral).astype(np.int16)
        of_i = int(exponents[-1]) if len(kernel) > n_e else 0
        bounds = bound[n_e:].copy()
        if stage.tonic:
            bounds[-1] = max(1, round(2.0**of_i))
        most = int((divisive.astype(np.int64) * (bounds + 1)).sum(1).max())
        shift = max(0, most.bit_length() - 30)
        tonic = round(2.0 ** (of_i - shift)) if stage.tonic else 0
        _require(not stage.tonic or tonic > 0, stage, "the constant part of the divisor vanishes in fixed point")
        gain_exponent += of_lateral + of_i - shift
    gains = stage.gain.double().numpy() * np.exp2(gain_exponent) * (1 if readout else ONE)
    gain, exponent = _mantissas(gains)
    bias = stage.bias.double().numpy() * (steps * 2.0 ** exponents[0] if readout else ONE)
    _require(steps * (LIMIT + np.abs(bias).max(initial=0)) < 1 << 31, stage, "its bias is too large")
    exponent = exponents[:n_e] if readout else exponent + 15
    c = stage.connection
    geometry = (c.stride, c.padding, c.dilation) if isinstance(c, EF.Conv) else ((1, 1), (0, 0), (1, 1))
    outputs = tuple(
        (inputs[1 + a] + 2 * geometry[1][a] - geometry[2][a] * (kernel.shape[2 + a] - 1) - 1) // geometry[0][a] + 1
        for a in (0, 1)
    )
    neuron = stage.neuron
    return IntegerStage(
        inputs,
        (n_e, 1, 1) if readout else (n_e, outputs[0], outputs[1]),
        *geometry,
        shift=shift,
        tonic=tonic,
        decay=0 if neuron is None else round(neuron.decay * (1 << DECAY_BITS)),
        theta=0 if neuron is None else max(1, round(neuron.theta * ONE)),
        hard=neuron is not None and neuron.reset == "hard",
        pooled=stage.pooled,
        weight=weight,
        divisive=divisive,
        gain=gain.astype(np.int32),
        exponent=exponent.astype(np.int32),
        bias=np.rint(bias).astype(np.int32),
    )


def _require(fits: bool, stage: Stage, why: str) -> None:
    if not fits:
        raise ValueError(f"{stage.name} cannot run in integers: {why}; train with weight decay, or export as onnx")


def _exponent(row: NDArray[np.float64], most: int) -> int:
    """The largest `e` with `max |row| 2^e <= most`, at most 30."""
    largest = float(np.abs(row).max(initial=0))
    return 30 if largest == 0 else min(30, int(np.floor(log2(most / largest))))


def _mantissas(values: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """`m`, below 2^15, and `h` with `values = m 2^-h` up to rounding."""
    pairs = [frexp(float(v)) for v in values]
    gain = np.array([min(GAIN, round(m * (1 << 15))) for m, _ in pairs])
    return gain, np.array([15 - e for _, e in pairs])


def _run(s: IntegerStage, x: Tensor, steps: int, division: Division) -> Tensor:
    n_e, readout = s.outputs[0], s.theta == 0
    if readout:
        x = x.sum((0, 3, 4), keepdim=True) * (steps if len(x) == 1 else 1)
    # Sums of integers below 2^53 are exact in float64.
    a = nn.functional.conv2d(
        x.flatten(0, 1).double(), torch.from_numpy(s.weight).double(), None, s.stride, s.padding, s.dilation
    )
    a = a.long().unflatten(0, x.shape[:2])
    bias = torch.from_numpy(s.bias).long()
    if readout:
        return a[0, :, :, 0, 0] + bias
    current = _current(s, a[:, :, :n_e], a[:, :, n_e:], division) + EF.per_neuron(bias, a)
    v = torch.zeros_like(current[0])
    spikes = []
    for i in current.expand(steps, *current.shape[1:]):
        h = (v * s.decay >> DECAY_BITS) + i
        fires = h >= s.theta
        v = torch.where(fires, 0 if s.hard else h - s.theta, h)
        spikes.append(fires.long())
    out = torch.stack(spikes)
    if s.pooled:
        out = (nn.functional.avg_pool2d(out.flatten(0, 1).double(), 2) * 4).long().unflatten(0, out.shape[:2])
    return out


def _current(s: IntegerStage, a_e: Tensor, a_i: Tensor, division: Division) -> Tensor:
    gain = EF.per_neuron(torch.from_numpy(s.gain).long(), a_e)
    shift = EF.per_neuron(torch.from_numpy(s.exponent).long(), a_e)
    if not s.divisive.shape[1]:
        return rounded(a_e * gain * EF.division.ONE, shift).clamp(-LIMIT, LIMIT)
    u = rounded(a_i, torch.tensor(s.shift))
    if s.tonic:
        u[:, :, -1] = s.tonic
    d = torch.einsum("nm,tbmhw->tbnhw", torch.from_numpy(s.divisive).double(), u.double()).long()
    nothing = (1 << 31) - 1
    smallest = d.masked_fill(d == 0, nothing).amin((2, 3, 4), keepdim=True)
    silent = smallest == nothing
    d = torch.where(d == 0, smallest, d)
    exponent = torch.frexp(d.double()).exponent.long() - 1
    table = torch.tensor(division.reciprocals())
    part = ((d << 31 - exponent) - (1 << 31)) >> 31 - (len(table).bit_length() - 1)
    current = rounded(a_e * gain * table[part], shift + exponent).clamp(-LIMIT, LIMIT)
    return torch.where(silent, 0, current)


def rounded(a: Tensor, shift: Tensor) -> Tensor:
    """`a / 2^shift`, to the nearest, for shifts from 0 to 61; others count as these."""
    shift = shift.clamp(0, 61)
    return (a + (1 << shift >> 1)) >> shift
