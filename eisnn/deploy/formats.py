"""What `eisnn export` writes, by format."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from eisnn.deploy.c import write_c
from eisnn.deploy.division import divides, hold
from eisnn.deploy.graph import write_aoti, write_onnx, write_torch
from eisnn.deploy.integer import integer
from eisnn.deploy.nir_graph import write_nir
from eisnn.functional import Division

CALIBRATION = {"nir": 1000}  # over how many training images a format averages divisors; others need one for its size
# Of a network, training images as it takes them (`CALIBRATION` says how many), the names of its classes, a folder, and
# how integers divide; returns what was written.
Export = Callable[[nn.Module, Tensor, Sequence[str], Path, Division], Path]


def _onnx(model: nn.Module, images: Tensor, classes: Sequence[str], folder: Path, division: Division) -> Path:
    return write_onnx(model, images, folder / "network.onnx")


def _torch(model: nn.Module, images: Tensor, classes: Sequence[str], folder: Path, division: Division) -> Path:
    write_torch(model, images, folder / "network.pt2")
    write_aoti(model, images, folder / "compiled.pt2")
    return folder


def _c(model: nn.Module, images: Tensor, classes: Sequence[str], folder: Path, division: Division) -> Path:
    if images.ndim != 4:
        raise ValueError("C takes images; this network takes sequences: export it as onnx or torch")
    channels, height, width = images.shape[1:]
    return write_c(integer(model, (channels, height, width), division), classes, folder)


def _nir(model: nn.Module, images: Tensor, classes: Sequence[str], folder: Path, division: Division) -> Path:
    held = hold(model, images) if divides(model) else model
    channels, height, width = images.shape[-3:]
    return write_nir(held, (channels, height, width), folder / "network.nir")


EXPORTS: dict[str, Export] = {"c": _c, "nir": _nir, "onnx": _onnx, "torch": _torch}
