"""Reference tensors that the authors' program computed: five files stand here, the others in shared/golden."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent / "golden_files"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "golden"


def load(name: str) -> dict[str, Tensor]:
    for folder in (HERE, SHARED):
        if (folder / f"{name}.safetensors").exists():
            return load_file(folder / f"{name}.safetensors")
    pytest.skip(f"{name} is not among the copied reference files and shared/golden is not here")


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """The largest difference, relative to the largest entry of the reference."""
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()
    assert torch.isfinite(ours).all()
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"
