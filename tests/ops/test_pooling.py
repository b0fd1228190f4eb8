"""2x2 average pooling: the kernel against torch's."""

import pytest
import torch
from circuits import assert_agree, rng
from torch.nn import functional as F

from eisnn import ops
from eisnn.ops import backends


def maps(height: int, width: int) -> torch.Tensor:
    """`[2, 3, 70, height, width]` with the channels inside."""
    return torch.randn(2, 3, height, width, 70, generator=rng(0), dtype=torch.float64).movedim(-1, 2)


@pytest.mark.skipif(not backends.HAS_TRITON or torch.cuda.is_available(), reason="for Triton's interpreter")
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (2, 2), (12, 10)])
def test_by_triton_as_by_torch(height, width, monkeypatch):
    x = maps(height, width).requires_grad_()
    theirs = F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, (2, 3))
    upstream = torch.randn(theirs.shape, generator=rng(1), dtype=torch.float64)
    monkeypatch.setattr(backends, "in_triton", lambda _: True)
    ours = ops.average_pool(x)
    assert ours.movedim(2, -1).is_contiguous()
    assert_agree(ours, theirs, 1e-15)
    for given in (upstream, upstream.contiguous(memory_format=torch.contiguous_format)[:1].expand_as(upstream)):
        expected, found = (torch.autograd.grad(y, x, given, retain_graph=True)[0] for y in (theirs, ours))
        assert_agree(found, expected, 1e-15)


@pytest.mark.parametrize("served", [False, True])
def test_spikes_are_averaged_exactly_in_any_dtype(served, monkeypatch):
    if served and (not backends.HAS_TRITON or torch.cuda.is_available()):
        pytest.skip("for Triton's interpreter")
    monkeypatch.setattr(backends, "in_triton", lambda _: served)
    spikes = (maps(8, 8) > 0).to(torch.bfloat16)
    assert torch.equal(ops.average_pool(spikes).double(), ops.average_pool(spikes.double()))
