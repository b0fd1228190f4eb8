"""Names of parameters in the layout of the authors' program (DeepEISNN), and ours: one mapping for both ways.

A circuit is spread over two of the file's numbered layers: the feedforward weights in one (`layers.2.conv_ee.weight`,
`layers.2.conv_ie.weight`; a readout's `layers.38.weight_ee`), and all else in the next (`layers.3.weight_ei`, `gain_i`,
`gain_e`, `bias`). The numbers in between belong to layers without parameters. A readout there carries gains and a bias
that nothing reads: ours has none.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from eisnn.models.vgg import VGG
from eisnn.nn import EICircuit, EIReadout

LATERAL = ("weight_ei", "gain_i", "gain_e", "bias")
UNREAD = LATERAL[1:]  # by a readout
FEEDFORWARD = ("conv_ee.weight", "conv_ie.weight", "weight_ee", "weight_ie")  # ends of their names
# Numbers of the first convolution, from one that is pooled to the next, and from the last of them to the readout.
FIRST, POOLED_BLOCK, READOUT_AFTER = 2, 7, 8


def feedforward(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """`W_EE` of each circuit in a file, in order."""
    numbered = {_number(name): t for name, t in tensors.items() if name.endswith(("conv_ee.weight", "weight_ee"))}
    return [numbered[number] for number in sorted(numbered)]


def unpaired(names: Iterable[str]) -> list[str]:
    """Feedforward weights whose other half, to E or to I neurons, is in the file, and they are not."""
    there = {name for name in names if name.endswith(FEEDFORWARD)}
    halves = {name.replace(*(("_ee", "_ie") if "_ee" in name else ("_ie", "_ee"))) for name in there}
    return sorted(halves - there)


def _number(name: str) -> int:
    match = re.match(r"layers\.(\d+)\.", name)
    return int(match[1]) if match else -1


def parameter_map(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Our parameter names to the file's, for the circuits of `model` in order.

    Args:
        names: of the file's tensors.
    Raises: ValueError that lists the names that are missing, and those that belong to nothing in the model.
    """
    names = set(names)
    circuits = {name: m for name, m in model.named_modules() if isinstance(m, EICircuit)}
    numbers = sorted({_number(name) for name in names if name.endswith(FEEDFORWARD)} - {-1})
    if len(numbers) < len(circuits):  # more of them are unused names, below
        raise ValueError(f"there are feedforward weights of {len(numbers)} circuits, the network has {len(circuits)}")
    found: dict[str, str] = {}
    unread: set[str] = set()
    for number, (circuit, module) in zip(numbers, circuits.items(), strict=False):
        own, after = f"layers.{number}.", f"layers.{number + 1}."
        form = own + ("conv_{}.weight" if module.connection.spatial else "weight_{}")
        for parameter, _ in module.named_parameters(recurse=False):
            theirs = after + parameter if parameter in LATERAL else form.format(parameter.removeprefix("weight_"))
            found[f"{circuit}.{parameter}"] = theirs
        if isinstance(module, EIReadout):
            unread |= {after + name for name in UNREAD}
    missing, unused = sorted(set(found.values()) - names), sorted(names - set(found.values()) - unread)
    if missing or unused:
        lists = {"missing": missing, "unused": unused}
        raise ValueError("; ".join(f"{what}: {', '.join(of)}" for what, of in lists.items() if of))
    return found


def numbered_names(model: VGG) -> list[str]:
    """The names that a network which pools after every convolution has in the file.

    Raises: ValueError for any other: its numbers are known from a checkpoint only.
    """
    count = len(model.layers)
    if set(range(count)) != model.pool_after:
        raise ValueError(
            "how the authors' program numbers the layers of a network that does not pool after every convolution is "
            "known from its checkpoints only: name one of the same network (--like)"
        )
    convolutions = [FIRST + POOLED_BLOCK * k for k in range(count)]
    names = [f"layers.{n}.conv_{kind}.weight" for n in convolutions for kind in ("ee", "ie")]
    names += [f"layers.{n + 1}.{parameter}" for n in convolutions for parameter in LATERAL]
    readout = convolutions[-1] + READOUT_AFTER
    return [*names, *(f"layers.{readout}.weight_{kind}" for kind in ("ee", "ie")), f"layers.{readout + 1}.weight_ei"]


def to_ours(value: Tensor, parameter: Tensor) -> Tensor:
    """A tensor of the file in the shape of our `parameter`: vectors have axes of length 1 there; ValueError if it has
    another size or is not floating-point."""
    if not value.is_floating_point():
        raise ValueError(f"it is {value.dtype}, expected floating-point weights")
    vector = parameter.ndim == 1 and value.ndim <= 3 and value.numel() == len(parameter) == max(value.shape)
    if value.shape != parameter.shape and not vector:
        raise ValueError(f"it has the shape {list(value.shape)}, expected {list(parameter.shape)}")
    return value.reshape(parameter.shape)


def to_theirs(model: VGG, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The parameters of `model` by the names and in the shapes of the file; what nothing reads in the readout is 1 for
    the gains and 0 for the bias."""
    tensors = {}
    for ours, parameter in model.named_parameters():
        value = parameter.detach().cpu()
        tensors[names[ours]] = (value.view(-1, 1, 1) if value.ndim == 1 else value).contiguous()
    after = names["readout.weight_ei"].removesuffix("weight_ei")
    n_e, n_i = model.readout.weight_ei.shape  # type: ignore[misc]
    unread = {"gain_i": torch.ones(1, n_i), "gain_e": torch.ones(1, n_e), "bias": torch.zeros(1, n_e)}
    return tensors | {after + name: value for name, value in unread.items()}
