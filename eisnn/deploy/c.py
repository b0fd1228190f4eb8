"""An integer network as C99. The algorithm is in `c_source`; this writes the numbers."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from eisnn.deploy.integer import IntegerNetwork, IntegerStage, Ints
from eisnn.files import write_atomically

SOURCE = Path(__file__).parent / "c_source"
COPIED = ("network.h", "network.c", "main.c")
C_TYPES = {"weight": "int8_t", "divisive": "int16_t", "gain": "int32_t", "exponent": "int32_t", "bias": "int32_t"}


def write_c(network: IntegerNetwork, classes: Sequence[str], folder: Path, name: str = "A network of eisnn") -> Path:
    """Write a folder that `cc -std=c99 main.c network.c weights.c` makes a program of.

    Args:
        network: what to write.
        classes: their names.
        folder: made if need be.
        name: for its README.
    Returns: `folder`.
    Raises: ValueError for another number of names.
    """
    if len(classes) != network.stages[-1].outputs[0]:
        raise ValueError(f"the network has {network.stages[-1].outputs[0]} classes, got {len(classes)} names")
    folder.mkdir(parents=True, exist_ok=True)
    for file in COPIED:
        write_atomically(folder / file, (SOURCE / file).read_bytes())
    table = network.division.reciprocals()
    sizes = _sizes(network)
    defines = {"STAGES": len(network.stages), "TABLE_BITS": len(table).bit_length() - 1} | sizes
    defines |= dict(zip(("CHANNELS", "HEIGHT", "WIDTH"), network.sample_shape, strict=True))
    defines |= {"CLASSES": len(classes), "TIME_STEPS": network.time_steps}
    _write(folder / "sizes.h", [f"#define {key} {value}" for key, value in defines.items()])
    lines = ['#include "network.h"', "", "const char *const class_names[CLASSES] = {"]
    lines += [f"    {_quoted(name)}," for name in classes]
    lines += ["};", *_array("reciprocals", "uint16_t", np.array(table), static=False)]
    for k, stage in enumerate(network.stages):
        for field, kind in C_TYPES.items():
            lines += _array(f"{field}_{k}", kind, _laid_out(stage, field))
    lines += ["", "const Stage stages[STAGES] = {"]
    lines += [f"    {{{', '.join(_fields(k, stage))}}}," for k, stage in enumerate(network.stages)]
    _write(folder / "weights.c", [*lines, "};"])
    network.save(folder / "integer.safetensors")
    kinds = {"shift": "by shifts", "lut": f"by a table of {len(table)} reciprocals"}
    described = (SOURCE / "README.md").read_text().format(
        name=name,
        width=network.sample_shape[2],
        height=network.sample_shape[1],
        kind="a binary PPM" if network.sample_shape[0] == 3 else "a binary PGM",
        image="image.ppm" if network.sample_shape[0] == 3 else "image.pgm",
        logit_scale=network.logit_scale,
        classes=", ".join(classes),
        time_steps=network.time_steps,
        division=kinds[network.division.kind] if any(s.divisive.size for s in network.stages) else "none",
        weights=f"{weight_bytes(network):,}",
        state=f"{state_bytes(network):,}",
    )  # fmt: skip
    _write(folder / "README.md", described.splitlines())
    return folder


def weight_bytes(network: IntegerNetwork) -> int:
    """What weights and tables take."""
    return 2 * len(network.division.reciprocals()) + sum(getattr(s, f).nbytes for s in network.stages for f in C_TYPES)


def state_bytes(network: IntegerNetwork) -> int:
    """What the program keeps beside the weights: maps of two layers over all steps, currents of one step, membranes."""
    sizes = _sizes(network)
    return 2 * sizes["MAP_SIZE"] + 4 * (sizes["CURRENT_SIZE"] + sizes["POTENTIAL_SIZE"])


def _sizes(network: IntegerNetwork) -> dict[str, int]:
    hidden = network.stages[:-1]
    positions = [prod(s.outputs[1:]) for s in hidden]
    maps = [network.time_steps * s.outputs[0] * prod(n // (1 + s.pooled) for n in s.outputs[1:]) for s in hidden]
    return {
        "MAP_SIZE": max(maps, default=1),
        "CURRENT_SIZE": max((len(s.weight) * p for s, p in zip(hidden, positions, strict=True)), default=1),
        "POTENTIAL_SIZE": max((s.outputs[0] * p for s, p in zip(hidden, positions, strict=True)), default=1),
    }


def _laid_out(stage: IntegerStage, field: str) -> Ints:
    values: Ints = getattr(stage, field)
    return values.transpose(1, 2, 3, 0) if field == "weight" else values


def _fields(k: int, s: IntegerStage) -> list[str]:
    plain = [*s.inputs, s.outputs[0], s.divisive.shape[1], *s.outputs[1:], *s.weight.shape[2:]]
    plain += [*s.stride, *s.padding, *s.dilation, s.shift, s.tonic, s.decay, s.theta, int(s.hard), int(s.pooled)]
    return [*map(str, plain), *(f"{field}_{k}" for field in C_TYPES)]


def _array(name: str, kind: str, values: Ints, static: bool = True) -> list[str]:
    flat = [str(v) for v in values.reshape(-1).tolist()] or ["0"]  # C has no arrays of no entries
    rows = [f"    {', '.join(flat[k : k + 24])}," for k in range(0, len(flat), 24)]
    return ["", f"{'static ' if static else ''}const {kind} {name}[{len(flat)}] = {{", *rows, "};"]


def _quoted(text: str) -> str:
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\?' else "_" for c in text)
    return f'"{plain}"'


def _write(file: Path, lines: list[str]) -> None:
    write_atomically(file, ("\n".join(lines) + "\n").encode())
