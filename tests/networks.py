"""A small network, initialised, and images for it."""

from typing import Any

import torch
from circuits import rng
from torch import Tensor

import eisnn
from eisnn.nn import CircuitOptions

SEMISATURATED = CircuitOptions(conserved=True, semisaturation=0.3, pooled=True, unit_variance=True)


def images(count: int = 6, size: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=rng(seed), dtype=torch.float64).to(dtype)


def small(options: CircuitOptions | None = None, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """Three layers of 8, 16 and 32 channels with weights as after some training: not all of them positive."""
    torch.manual_seed(0)
    fields = {"time_steps": 3, "width": 0.25, "circuit_options": options} | changes
    model = eisnn.create_model("convnet3", **fields).to(dtype)
    eisnn.ei_init_(model, images(8, seed=1, dtype=dtype), generator=rng(1))
    return model.eval()
