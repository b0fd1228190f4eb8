"""Reference tensors that the authors' program computed."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FILES = Path(__file__).parent / "golden_files"


def load(name: str) -> dict[str, Tensor]:
    return load_file(FILES / f"{name}.safetensors")


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """The largest difference, relative to the largest entry of the reference."""
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()
    assert torch.isfinite(ours).all()
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"
