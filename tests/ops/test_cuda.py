"""On a real GPU: the kernels against float64 on the CPU, and a recorded training step against the same step as it is.

Skipped without one; the kernels' mathematics is tested in the interpreter (`test_population.py`).
"""

import pytest
import torch
from circuits import assert_agree, rng
from train_runs import interrupt_at, tiny

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.data import Augmentation
from eisnn.functional import LIFConstants
from eisnn.functional.stabilize import noise_of
from eisnn.nn.options import PLUS
from eisnn.ops import backends
from eisnn.train import Interrupted, Run, fit, resume

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and backends.HAS_TRITON), reason="there is no CUDA device here, or no Triton"
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tonic", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("steps", "given"), [(4, 4), (4, 1), (6, 6)])
def test_the_population_kernels(dtype, tonic, channels_last, steps, given):
    g = rng(0)
    n_e, n_i, batch = 136, 2 if tonic else 34, 5
    stack = torch.randn(given, batch, n_e + n_i + (-(n_e + n_i) % 16), 9, 7, generator=g, dtype=torch.float64)
    stack[:, :, n_e:] = stack[:, :, n_e:].relu()
    stack[0, 1, n_e:] = 0
    stack[:, :, n_e + n_i - 1] = 1 if tonic else stack[:, :, n_e + n_i - 1]
    weight = torch.rand(n_e, n_i, generator=g, dtype=torch.float64) + 0.1
    gain, bias = (torch.rand(n_e, generator=g, dtype=torch.float64) for _ in range(2))
    if channels_last:
        stack = stack.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, stack.shape[:2])
    stack, weight = stack.to(dtype), weight.to(dtype)
    upstream = torch.randn(steps, batch, n_e, 9, 7, generator=g, dtype=torch.float64)
    results = []
    for device, kind in (("cuda", dtype), ("cpu", torch.float64)):
        leaves = [x.to(device, kind).requires_grad_() for x in (stack, weight)]
        leaves += [x.to(device, torch.promote_types(kind, torch.float32)).requires_grad_() for x in (gain, bias)]
        if device == "cuda":
            s, last = ops.population(*leaves, LIFConstants(), None, steps, tonic=tonic)
        else:
            s, last = EF.population(leaves[0][:, :, : n_e + n_i], *leaves[1:], LIFConstants(), None, steps)
        loss = (s * upstream.to(s)).sum() + last.sum()
        results.append([x.detach().cpu().double() for x in (s, last, *torch.autograd.grad(loss, leaves))])
    ours, reference = results
    if tonic:
        for found in results:
            found[2][:, :, n_e + n_i - 1] = 0  # what is always 1 needs no gradient
    ours[2], reference[2] = (found[2][:, :, : n_e + n_i] for found in results)
    assert (ours[0] != reference[0]).double().mean() < {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 5e-3)
    for a, b in zip(ours[2:], reference[2:], strict=True):
        difference = (a - b).norm() / b.norm()
        assert difference < {torch.float64: 1e-9, torch.float32: 5e-3}.get(dtype, 5e-2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_smallest_positive_value(dtype):
    from eisnn.ops.population import triton

    i_div = torch.rand(3, 5, 40, 33, 17, generator=rng(0)).sub_(0.5).relu_().to("cuda", dtype)
    i_div[1, 2] = 0
    i_div[0, 3, 0, 0, 0] = 1e-9  # noise
    expected = EF.smallest_positive(i_div).to(torch.promote_types(dtype, torch.float32))
    for maps in (i_div, i_div.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 5))):
        found = torch.full_like(expected, torch.nan)
        triton.smallest_positive(maps, noise_of(maps), found)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("circuit", ["paper", "plus", "bn"])
def test_a_network_is_the_same_on_both_devices(circuit):
    torch.manual_seed(0)
    options = {"circuit_options": PLUS} if circuit == "plus" else {}
    model = eisnn.create_model("vgg8", width=0.5, circuit="bn" if circuit == "bn" else "ei", **options).double()
    images = torch.rand(8, 3, 32, 32, generator=rng(0), dtype=torch.float64)
    eisnn.ei_init_(model, images, generator=rng(1))
    results = []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        loss = torch.nn.functional.cross_entropy(model(images.to(device)), torch.arange(8, device=device))
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        assert_agree(ours, theirs.cpu(), 1e-6, scale=1e-6)  # some are 0 but for rounding


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"circuit_options": PLUS, "optimizer": "orthogonal", "lr": 0.02},
        {"circuit": "bn", "lr": 0.1},
        {"optimizer": "adam", "lr": 0.003},
        {"average": 0.9, "augmentation": Augmentation(cutmix=1.0)},
    ],
    ids=["paper", "plus", "bn", "adam", "mixed"],
)
def test_a_recorded_step_trains_as_one_that_is_not(tmp_path, images, changes):
    logs = []
    for recorded in (True, False):
        folder = tmp_path / str(recorded)
        config = tiny(images, accelerator="cuda", precision="64", epochs=6, cuda_graph=recorded, **changes)
        fit(config, folder, quiet=True)
        logs.append([line["train_loss"] for line in Run(folder).metrics()])
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
    assert logs[0][-1] < logs[0][0]


def test_a_recorded_run_continues(tmp_path, images):
    config = tiny(images, accelerator="cuda", precision="64", epochs=6)
    whole = fit(config, tmp_path / "whole", quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, 9)
        with pytest.raises(Interrupted):
            fit(config, tmp_path / "parts", quiet=True)
    parts = resume(tmp_path / "parts", quiet=True)
    losses = [[line["train_loss"] for line in Run(tmp_path / name).metrics()] for name in ("whole", "parts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert whole.accuracy == pytest.approx(parts.accuracy, abs=5)


def test_a_training_step_never_waits_for_the_device():
    model = eisnn.create_model("vgg8", width=0.5)
    images = torch.rand(16, 3, 32, 32, generator=rng(0))
    eisnn.ei_init_(model, images, generator=rng(1))
    model, images, labels = model.cuda(), images.cuda(), torch.arange(16, device="cuda") % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    eisnn.enforce_dale(optimizer, model)

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
        with pytest.raises(RuntimeError, match="synchroniz"):  # as it would have been noticed
            images.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
