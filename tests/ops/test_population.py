"""The hot operation against its readable reference: stabilise, divide, gain, bias and LIF over all time steps."""

import sys

import numpy as np
import pytest
import torch
from circuits import assert_agree, rng, spikes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eisnn.functional as EF
from eisnn import ops
from eisnn.functional import LIFConstants
from eisnn.ops.population.torch import POPULATIONS

pytestmark = pytest.mark.usefixtures("backend")

CONSTANTS = st.builds(
    LIFConstants,
    tau=st.floats(1, 5),
    theta=st.floats(0.5, 2),
    reset=st.sampled_from(["soft", "hard"]),
    surrogate=st.sampled_from(sorted(EF.SURROGATES)),
    detach_reset=st.booleans(),
)


def of_two_currents(op):
    """`op` on its two currents: an identity in place of `M` makes the I part of the stack the divisive current."""

    def called(balanced, i_div, gain_e, bias, constants, v=None, time_steps=None):
        stack = torch.cat([balanced, i_div], 2)
        if balanced.ndim == 5 and balanced.stride(2) == 1:
            stack = stack.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, stack.shape[:2])
        return op(stack, torch.eye(i_div.shape[2], dtype=i_div.dtype), gain_e, bias, constants, v, time_steps)

    return called


def interpreted() -> bool:
    """Whether Triton's interpreter is at work, which takes its time."""
    return POPULATIONS.name(torch.zeros(1, 1, 1), LIFConstants()) == "triton" and not torch.cuda.is_available()


FUSED, REFERENCE = of_two_currents(ops.population), of_two_currents(EF.population)


NAMES = ("balanced", "i_div", "gain_e", "bias")


def inputs(
    t: int = 3,
    b: int = 4,
    n: int = 5,
    space: tuple[int, ...] = (3, 2),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Currents with silent sites, partly dead sites and, from two images on, a silent sample."""
    g = rng(seed)
    balanced = torch.randn(t, b, n, *space, generator=g, dtype=torch.float64)
    i_div = torch.empty_like(balanced).exponential_(generator=g) + 0.05
    i_div = i_div * spikes(i_div.shape, 0.8, seed + 1)
    balanced = torch.where((i_div == 0) & (spikes(i_div.shape, 0.7, seed + 2) > 0), 0, balanced)
    if b > 1:
        balanced[0, 1] = i_div[0, 1] = 0
    gain = 0.5 + torch.rand(n, generator=g, dtype=torch.float64)
    bias = torch.randn(n, generator=g, dtype=torch.float64)
    return {"balanced": balanced.to(dtype), "i_div": i_div.to(dtype), "gain_e": gain.to(dtype), "bias": bias.to(dtype)}


def run(
    op, tensors: dict[str, Tensor], constants: LIFConstants, v: Tensor | None, t: int, use: str = "both"
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Spikes, last potential and all gradients of a random linear function of them."""
    leaves = {k: x.clone().requires_grad_() for k, x in tensors.items()}
    state = None if v is None else v.clone().requires_grad_()
    s, last = op(*[leaves[k] for k in NAMES], constants, state, t)
    if state is not None:
        leaves["v"] = state
    g = torch.randn(t + 1, *last.shape, generator=rng(9), dtype=torch.float64)
    loss = (use != "state") * (s * g[1:]).sum() + (use != "spikes") * (last * g[0]).sum()
    return s.detach(), last.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_uninitialised_memory_is_nan_here():
    assert torch.empty(3).isnan().all()
    assert torch.empty_like(torch.zeros(2)).isnan().all()


@settings(max_examples=100)
@given(
    constants=CONSTANTS,
    t=st.integers(1, 4),
    b=st.integers(1, 4),
    space=st.sampled_from([(), (2, 3), (1, 1)]),
    static=st.booleans(),
    state=st.booleans(),
    use=st.sampled_from(["spikes", "state", "both"]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_reference_in_value_and_every_gradient(constants, t, b, space, static, state, use, seed):
    tensors = inputs(1 if static else t, b, space=space, seed=seed)
    v = torch.randn(b, 5, *space, generator=rng(seed + 3), dtype=torch.float64) if state else None
    ours, reference = (run(op, tensors, constants, v, t, use) for op in (FUSED, REFERENCE))
    assert torch.equal(ours[0], reference[0])
    assert_agree(ours[1], reference[1], 1e-12)
    for name, grad in reference[2].items():
        assert_agree(ours[2][name], grad, 1e-12)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("piece", [1, 300, 1 << 16])
def test_the_pieces_of_the_batch_do_not_show(piece, state, channels_last, monkeypatch):
    monkeypatch.setattr(sys.modules["eisnn.ops.scan"], "PIECE", piece)
    monkeypatch.setattr(sys.modules["eisnn.ops.population.gpu"], "PART", piece)
    tensors, v = inputs(b=7), torch.randn(7, 5, 3, 2, generator=rng(3), dtype=torch.float64)
    if channels_last:
        for name in ("balanced", "i_div"):
            tensors[name] = tensors[name].flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 7))
    ours = run(FUSED, tensors, LIFConstants(), v if state else None, 3)
    reference = run(REFERENCE, tensors, LIFConstants(), v if state else None, 3)
    assert torch.equal(ours[0], reference[0])
    for name, grad in reference[2].items():
        assert_agree(ours[2][name], grad, 1e-12)


@settings(max_examples=40)
@given(constants=CONSTANTS, seed=st.integers(0, 10**6))
def test_a_static_input_equals_the_repeated_one(constants, seed):
    tensors = inputs(1, seed=seed)
    repeated = {k: x.repeat(4, *(1,) * (x.ndim - 1)) if x.ndim > 1 else x for k, x in tensors.items()}
    one, many = run(FUSED, tensors, constants, None, 4), run(FUSED, repeated, constants, None, 4)
    assert torch.equal(one[0], many[0])
    assert torch.equal(one[1], many[1])
    for name in NAMES:
        expected = many[2][name].sum(0, keepdim=True) if name in ("balanced", "i_div") else many[2][name]
        assert_agree(one[2][name], expected, 1e-12)


@settings(max_examples=40)
@given(constants=CONSTANTS, seed=st.integers(0, 10**6))
def test_two_calls_with_the_state_passed_on_equal_one(constants, seed):
    x = inputs(6, seed=seed)
    leaves = [x[k].requires_grad_() for k in NAMES]
    whole, last = FUSED(*leaves, constants)
    balanced, i_div, gain_e, bias = leaves
    first, v = FUSED(balanced[:2], i_div[:2], gain_e, bias, constants)
    second, end = FUSED(balanced[2:], i_div[2:], gain_e, bias, constants, v)
    parts = torch.cat([first, second])
    assert torch.equal(parts, whole)
    assert_agree(end, last, 1e-13)
    upstream = torch.randn(whole.shape, generator=rng(1), dtype=torch.float64)
    for ours, expected in zip(*(torch.autograd.grad(s, leaves, upstream) for s in (parts, whole)), strict=True):
        assert_agree(ours, expected, 1e-12)


@pytest.mark.parametrize("op", [FUSED, REFERENCE])
def test_a_silent_sample_integrates_its_bias_alone(op):
    tensors = inputs(3, 2)
    for k in ("balanced", "i_div"):
        tensors[k][:, 1] = 0
    s, _, grads = run(op, tensors, LIFConstants(), None, 3)
    bias = tensors["bias"].view(5, 1, 1).expand(3, 1, 5, 3, 2)
    assert torch.equal(s[:, 1:], ops.lif(bias.contiguous(), LIFConstants())[0])
    assert (grads["balanced"][:, 1] == 0).all()
    assert (grads["i_div"][:, 1] == 0).all()
    assert all(g.isfinite().all() for g in grads.values())


@pytest.mark.parametrize("channels_last", [False, True])
def test_nan_in_the_divisive_current_is_not_lost(channels_last):
    stack = torch.rand(2, 3, 7, 4, 4, generator=rng(0), dtype=torch.float64)
    stack[0, 1, 5:] = torch.nan
    if channels_last:
        stack = stack.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (2, 3))
    last = ops.population(
        stack, torch.ones(5, 2, dtype=torch.float64), *torch.ones(2, 5, dtype=torch.float64), LIFConstants()
    )[1]
    assert last[1].isnan().all()
    assert last[[0, 2]].isfinite().all()


def test_what_does_not_fit_is_refused():
    stack, weight, one = torch.rand(2, 3, 7, 4, 4), torch.rand(5, 2), torch.ones(5)
    for empty in (stack[:0], stack[:, :0]):
        with pytest.raises(ValueError, match="at least one time step and one image"):
            ops.population(empty, weight, one, one, LIFConstants())
    with pytest.raises(TypeError, match=r"floating-point currents, got torch\.int64"):
        ops.population(stack.long(), weight, one, one, LIFConstants())
    with pytest.raises(ValueError, match="tensors on one device, got them on cpu, meta, cpu, cpu"):
        ops.population(stack, weight.to("meta"), one, one, LIFConstants())


def test_a_sample_never_depends_on_the_others():
    tensors = inputs(3, 4)
    s, last, _ = run(FUSED, tensors, LIFConstants(), None, 3)
    alone = {k: x[:, 2:3] if x.ndim > 1 else x for k, x in tensors.items()}
    one, one_last, _ = run(FUSED, alone, LIFConstants(), None, 3)
    assert torch.equal(one, s[:, 2:3])
    assert torch.equal(one_last, last[2:3])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_currents_are_divided_and_integrated_in_float32(dtype):
    tensors = inputs(4, dtype=dtype)
    s, last, grads = run(FUSED, tensors, LIFConstants(), None, 4)
    wide = {k: x.float() for k, x in tensors.items()}
    s32, last32, grads32 = run(FUSED, wide, LIFConstants(), None, 4)
    assert (s.dtype, last.dtype) == (dtype, torch.float32)
    assert torch.equal(s.float(), s32)
    assert_agree(last, last32, 1e-6)
    for name in NAMES:
        assert grads[name].dtype == dtype
        assert_agree(grads[name], grads32[name], 2 * torch.finfo(dtype).eps + 1e-6)


def test_any_memory_format():
    tensors = inputs(3, 4)
    last = {
        k: x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 4)) if x.ndim > 1 else x
        for k, x in tensors.items()
    }
    one, two = (run(FUSED, x, LIFConstants(), None, 3) for x in (tensors, last))
    assert torch.equal(one[0], two[0])
    for name in NAMES:
        assert_agree(two[2][name], one[2][name], 1e-13)


def test_a_kept_graph_gives_the_same_gradients_again():
    leaves = [x.requires_grad_() for x in inputs().values()]
    s, _ = FUSED(*leaves, LIFConstants())
    upstream = torch.randn(s.shape, generator=rng(1), dtype=torch.float64)
    for first, second in zip(
        *(torch.autograd.grad(s, leaves, upstream, retain_graph=True) for _ in range(2)), strict=True
    ):
        assert torch.equal(first, second)


def test_no_input_is_changed():
    tensors, v = inputs(3, 4), torch.randn(4, 5, 3, 2, generator=rng(3), dtype=torch.float64)
    leaves = {k: x.clone().requires_grad_() for k, x in tensors.items()}
    state = v.clone()
    FUSED(*leaves.values(), LIFConstants(), state)[0].sum().backward()
    assert torch.equal(state, v)
    for k, x in tensors.items():
        assert torch.equal(leaves[k], x)


@pytest.mark.parametrize(("n_i", "channels_last"), [(7, False), (7, True), (2, True), (1, True)])
def test_many_neurons_and_positions(n_i, channels_last):
    """Beyond one chunk of neurons, one block of positions and one group of images, with a lateral weight that mixes."""
    g = rng(0)
    n_e, batch = 300, 2 if interpreted() else 35
    stack = torch.randn(2, batch, n_e + n_i, 9, 4, generator=g, dtype=torch.float64)
    stack[:, :, n_e:].abs_()
    weight = torch.rand(n_e, n_i, generator=g, dtype=torch.float64)
    gain, bias = torch.rand(n_e, generator=g, dtype=torch.float64), torch.randn(n_e, generator=g, dtype=torch.float64)
    if channels_last:
        stack = stack.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (2, batch))
    results = []
    for op in (ops.population, EF.population):
        leaves = [x.detach().clone().requires_grad_() for x in (stack, weight, gain, bias)]
        s, last = op(*leaves, LIFConstants())
        upstream = torch.randn(s.shape, generator=rng(1), dtype=torch.float64)
        results.append([s, last, *torch.autograd.grad((s * upstream).sum() + last.sum(), leaves)])
    ours, reference = results
    assert (ours[0] != reference[0]).double().mean() < 1e-5  # sums in another order may flip a spike at the threshold
    for a, b in zip(ours[1:], reference[1:], strict=True):
        assert_agree(a, b, 1e-11)


@settings(max_examples=60)
@given(
    constants=CONSTANTS,
    t=st.sampled_from([1, 3, 4, 6]),
    n=st.sampled_from([(5, 2), (70, 2), (6, 3)]),
    space=st.sampled_from([(), (3, 6)]),
    static=st.booleans(),
    state=st.booleans(),
    more=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_a_tonic_i_neuron_needs_no_stabilisation(constants, t, n, space, static, state, more, channels_last, seed):
    """Two I neurons, a pooled and a tonic one, have a path of their own; currents beyond them are ignored."""
    g = rng(seed)
    n_e, n_i = n
    steps, batch, extra = 1 if static else t, 3, -sum(n) % 8 if more else 0
    stack = torch.randn(steps, batch, n_e + n_i + extra, *space, generator=g, dtype=torch.float64)
    stack[:, :, n_e : n_e + n_i - 1] = stack[:, :, n_e : n_e + n_i - 1].relu()
    stack[:, :, n_e + n_i - 1] = 1
    weight = torch.rand(n_e, n_i, generator=g, dtype=torch.float64) + 0.1
    gain, bias = torch.rand(n_e, generator=g, dtype=torch.float64), torch.randn(n_e, generator=g, dtype=torch.float64)
    v = torch.randn(batch, n_e, *space, generator=g, dtype=torch.float64) if state else None
    if channels_last and space:
        stack = stack.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, stack.shape[:2])
    results = []
    with pytest.MonkeyPatch.context() as patch:
        if more:  # as on a GPU
            for module in ("op", "torch"):
                patch.setattr(sys.modules[f"eisnn.ops.population.{module}"], "padded", lambda n, _: -(-n // 8) * 8)
        for op in (ops.population, EF.population):
            leaves = [x.detach().clone().requires_grad_() for x in (stack, weight, gain, bias, *([v] if state else []))]
            currents, options = leaves[0], {"tonic": True} if op is ops.population else {}
            if op is EF.population:
                currents = currents[:, :, : n_e + n_i]
            s, last = op(currents, *leaves[1:4], constants, leaves[4] if state else None, t, **options)
            upstream = torch.randn(s.shape, generator=rng(1), dtype=torch.float64)
            results.append([s, last, *torch.autograd.grad((s * upstream).sum() + last.sum(), leaves)])
    ours, reference = results
    assert torch.equal(ours[0], reference[0])
    for grads in (ours[2], reference[2]):
        grads[:, :, n_e + n_i - 1] = 0  # what is always 1 needs no gradient
    for a, b in zip(ours[1:], reference[1:], strict=True):
        assert_agree(a, b, 1e-11)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gain_e": torch.ones(3)}, r"got shapes \[2, 3, 10\], \[8, 2\], \[3\] and \[8\]"),
        ({"bias": torch.ones(8, 1)}, r"gain_e and bias \[n_E\]; got .* and \[8, 1\]"),
        ({"weight": torch.rand(7, 2)}, r"currents \[T, B, n_E \+ n_I, \.\.\.\], .* got shapes \[2, 3, 10\], \[7, 2\]"),
        ({"weight": torch.rand(8)}, r"weight \[n_E, n_I\], .* got shapes \[2, 3, 10\], \[8\]"),
        ({"currents": torch.rand(2, 10)}, r"got shapes \[2, 10\]"),
        ({"v": torch.rand(1, 8)}, r"here of shape \[3, 8\], got torch\.float32 of shape \[1, 8\]"),
        ({"time_steps": 4}, "population: the first axis is time and must be time_steps=4, or 1 for a static input"),
    ],
)
def test_shapes_that_do_not_fit_are_named(wrong, message):
    right = {
        "currents": torch.rand(2, 3, 10),
        "weight": torch.rand(8, 2),
        "gain_e": torch.ones(8),
        "bias": torch.zeros(8),
        "constants": LIFConstants(),
    }
    assert ops.population(**right)[0].shape == (2, 3, 8)
    with pytest.raises(ValueError, match=message):
        ops.population(**{**right, **wrong})


def test_currents_beyond_those_of_the_weight_are_not_ignored():
    currents, gain = torch.rand(2, 3, 16), torch.ones(12)
    assert ops.population(currents, torch.rand(12, 4), gain, gain, LIFConstants())[0].shape == (2, 3, 12)
    with pytest.raises(ValueError, match=r"got shapes \[2, 3, 16\], \[12, 3\]"):
        ops.population(currents, torch.rand(12, 3), gain, gain, LIFConstants())
    with pytest.raises(ValueError, match=r"split_currents takes .* \[2, 3, 16\] and \[12, 3\]"):
        EF.split_currents(currents, torch.rand(12, 3))


def test_steps_of_large_maps_are_beyond_32_bits():
    """Interpreted: memory that nobody touches is not there, so that the map takes none."""
    if not interpreted():
        pytest.skip("of Triton's index arithmetic")
    step, n = 1_200_000_000, 4
    current = torch.from_numpy(np.empty(2 * step + n, np.float16)).as_strided((3, 1, n), (step, n, 1))
    current.copy_(torch.randn(3, 1, n, generator=rng(0)))
    near = current.contiguous()
    assert torch.equal(ops.lif(current, LIFConstants())[0], ops.lif(near, LIFConstants())[0])
