"""A trained network as a graph of standard operators, which runs where this package is not installed."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eisnn.deploy.stages import require_trained
from eisnn.files import require_writable
from eisnn.functional import EXACT
from eisnn.nn import fold, layers_of


class _Classifier(nn.Module):
    """A network that is called with one tensor and returns one: what all formats can hold."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporters say of their own parts and of torchvision to themselves."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


@_quiet()
@torch.no_grad()
def exported(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """`model`, folded, as a graph of torch's own operators; the size of the batch is free, T is fixed.

    Args:
        model: initialised; folded or not.
        images: an example of what the model takes, `[B, C, H, W]` or `[T, B, C, H, W]`, for its shape and dtype. It is
            traced with zeros: a program keeps its example inputs, and these may be somebody's.
    Returns: a program from images to logits `[B, classes]`. It checks no values: a negative input is no error.
    Raises: RuntimeError for a network that was never initialised; ValueError for one with batch norms that never saw a
        batch.
    """
    folded, batch = fold(model), images.ndim - 4
    require_trained(model)
    shape = [2 if axis == batch else size for axis, size in enumerate(images.shape)]  # 1 would be a constant
    shapes = {"images": {batch: torch.export.Dim("batch", min=1)}}
    return torch.export.export(_Classifier(folded), (images.new_zeros(shape),), dynamic_shapes=shapes)


@_quiet()
def write_onnx(model: nn.Module, images: Tensor, file: Path) -> Path:
    """Write `model`, folded, as ONNX with the input "images" and the output "logits"; arguments as of `exported`.

    Raises: ValueError for a network that divides otherwise than exactly; ImportError without onnx and onnxscript (the
        extra `onnx`).
    """
    divisions = {getattr(layer, "division", EXACT) for layer in layers_of(model).values()} - {EXACT}
    if divisions:
        raise ValueError(
            f"this network divides by {divisions.pop().kind}, and ONNX has no operator that takes a number apart into "
            "mantissa and exponent: export it as c or torch, or as eisnn.deploy.divide(model, Division())"
        )
    require_writable(file)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    program = torch.onnx.export(exported(model, images), dynamo=True, verbose=False, **names)
    assert program is not None
    program.save(str(file))
    return file


@_quiet()
def write_torch(model: nn.Module, images: Tensor, file: Path) -> Path:
    """Write `model`, folded, so that `torch.export.load(file).module()` is it; arguments as of `exported`."""
    require_writable(file)
    torch.export.save(exported(model, images), file)
    return file


@_quiet()
def write_aoti(model: nn.Module, images: Tensor, file: Path) -> Path:
    """Write `model`, folded and compiled for this kind of processor by AOTInductor, so that
    `torch._inductor.aoti_load_package(file)` runs it, also from C++; arguments as of `exported`. It needs a compiler.
    """
    require_writable(file)
    torch._inductor.aoti_compile_and_package(exported(model, images), package_path=str(file.absolute()))
    return file
