"""LIF neurons: a trace worked out by hand, SpikingJelly, the scan as written, state, static currents."""

import copy
import sys

import pytest
import torch
from circuits import assert_agree, rng
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.functional import LIFConstants

pytestmark = pytest.mark.usefixtures("backend")

CONSTANTS = st.builds(
    LIFConstants,
    tau=st.floats(1, 10),
    theta=st.floats(0.3, 3),
    reset=st.sampled_from(["soft", "hard"]),
    surrogate=st.sampled_from(sorted(EF.SURROGATES)),
    alpha=st.none() | st.floats(0.5, 5),
    detach_reset=st.booleans(),
)


def currents(t: int, b: int, n: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(t, b, n, generator=rng(seed), dtype=torch.float64) + 0.5


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


@pytest.mark.parametrize("scan", [ops.lif, EF.lif])
def test_hand_worked_trace(scan):
    #        I:    0.6   0.6   0.5   1.2   -0.9   2.5   0     0     0.75
    # soft   H:    0.6   0.9   0.95  1.675 -0.5625 2.21875 0.609375 0.3046875 0.90234375
    #        V:    0.6   0.9   0.95  0.675 -0.5625 1.21875 ...
    current = column([0.6, 0.6, 0.5, 1.2, -0.9, 2.5, 0, 0, 0.75])
    s, v = scan(current, LIFConstants())
    assert s.flatten().tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 0]
    assert v.item() == pytest.approx(0.90234375, abs=1e-14)
    # hard   H:    0.6   0.9   0.95  1.675(V=0) -0.9  2.05(V=0) 0  0  0.75
    s, v = scan(current, LIFConstants(reset="hard"))
    assert s.flatten().tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 0]
    assert v.item() == 0.75
    # tau = 4, theta = 0.5, V[0] = 0.2: H = 0.15 + 0.6 = 0.75 (V=0.25), 0.7875 (0.2875), 0.715625 (0.215625)
    s, v = scan(current[:3], LIFConstants(tau=4, theta=0.5), torch.full((1, 1), 0.2, dtype=torch.float64))
    assert s.flatten().tolist() == [1, 1, 1]
    assert v.item() == pytest.approx(0.215625, abs=1e-14)


@pytest.mark.parametrize("scan", [ops.lif, EF.lif])
def test_fires_at_exactly_the_threshold_and_never_below(scan):
    below = float(torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)))
    s, v = scan(torch.tensor([[[1.0, below]]], dtype=torch.float64), LIFConstants())
    assert s.flatten().tolist() == [1, 0]
    assert v.flatten().tolist() == [0, below]


@pytest.mark.parametrize("scan", [ops.lif, EF.lif])
def test_hand_worked_gradient(scan):
    """T = 2, soft reset: `dI[0] = g0 f(h0) + (1 - 1/tau) g1 f(h1)`; without detaching, V[0] moves by -theta f(h0)."""
    f = EF.surrogate_derivative
    for detach, through_reset in [(True, 0.0), (False, 1.0)]:
        current = column([0.8, 0.9]).requires_grad_()
        h = torch.tensor([0.8, 0.4 + 0.9], dtype=torch.float64)
        s, _ = scan(current, LIFConstants(detach_reset=detach))
        s.backward(column([2.0, -3.0]))
        f0, f1 = f(h - 1).tolist()
        expected = [2 * f0 + 0.5 * (1 - through_reset * f0) * -3 * f1, -3 * f1]
        assert current.grad.flatten().tolist() == pytest.approx(expected, rel=1e-13)


@settings(max_examples=150)
@given(
    constants=CONSTANTS,
    t=st.integers(1, 5),
    b=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    static=st.booleans(),
    state=st.booleans(),
    use=st.sampled_from(["spikes", "state", "both"]),
)
def test_equals_the_scan_as_written(constants, t, b, seed, static, state, use):
    """Spikes, last potential, and gradients of the current and of the initial potential."""
    results = []
    for scan in (ops.lif, EF.lif):
        current = currents(1 if static else t, b, seed=seed).requires_grad_()
        v = torch.randn(b, 5, generator=rng(seed + 1), dtype=torch.float64).requires_grad_() if state else None
        s, last = scan(current, constants, v, t)
        g = torch.randn(t + 1, b, 5, generator=rng(seed + 2), dtype=torch.float64)
        loss = (use != "state") * (s * g[1:]).sum() + (use != "spikes") * (last * g[0]).sum()
        results.append((s, last, *torch.autograd.grad(loss, [current, *([v] if state else [])])))
    for ours, reference in zip(*results, strict=True):
        assert_agree(ours, reference, 1e-13)
    assert torch.equal(results[0][0], results[1][0])


@pytest.mark.parametrize("piece", [1, 10, 1 << 16])
def test_the_pieces_of_the_batch_do_not_show(piece, monkeypatch):
    monkeypatch.setattr(sys.modules["eisnn.ops.scan"], "PIECE", piece)
    current = currents(4, 7).requires_grad_()
    v = currents(1, 7, seed=1)[0].requires_grad_()
    results = [scan(current, LIFConstants(detach_reset=False), v) for scan in (ops.lif, EF.lif)]
    for ours, reference in zip(*results, strict=True):
        assert_agree(ours, reference, 1e-14)
    grads = [torch.autograd.grad((s * currents(4, 7, seed=2)).sum() + last.sum(), [current, v]) for s, last in results]
    for ours, reference in zip(*grads, strict=True):
        assert_agree(ours, reference, 1e-13)


@given(constants=CONSTANTS, seed=st.integers(0, 10**6))
def test_two_calls_with_the_state_passed_on_equal_one(constants, seed):
    current = currents(6, 2, seed=seed).requires_grad_()
    upstream = currents(6, 2, seed=seed + 1)
    whole, v = ops.lif(current, constants)
    first, v2 = ops.lif(current[:2], constants)
    second, v6 = ops.lif(current[2:], constants, v2)
    parts = torch.cat([first, second])
    assert torch.equal(parts, whole)
    assert_agree(v6, v, 1e-14)
    losses = [(s * upstream).sum() + last.sum() for s, last in [(whole, v), (parts, v6)]]
    one, two = (torch.autograd.grad(loss, current)[0] for loss in losses)
    assert_agree(two, one, 1e-13)


@given(constants=CONSTANTS, seed=st.integers(0, 10**6), t=st.integers(1, 6))
def test_a_static_current_equals_the_repeated_one(constants, seed, t):
    current = currents(1, 3, seed=seed).requires_grad_()
    upstream = currents(t, 3, seed=seed + 1)
    static, v = ops.lif(current, constants, time_steps=t)
    repeated, w = ops.lif(current.repeat(t, 1, 1), constants)
    assert torch.equal(static, repeated)
    assert torch.equal(v, w)
    one, two = (torch.autograd.grad((s * upstream).sum(), current)[0] for s in (static, repeated))
    assert_agree(one, two, 1e-13)


def test_no_input_is_changed():
    current, v = currents(3, 2), currents(1, 2)[0]
    copies = current.clone(), v.clone()
    leaf = current.requires_grad_()
    ops.lif(leaf, LIFConstants(), v)[0].sum().backward()
    assert torch.equal(current, copies[0])
    assert torch.equal(v, copies[1])


def test_a_kept_graph_gives_the_same_gradients_again():
    current, upstream = currents(4, 2).requires_grad_(), currents(4, 2, seed=1)
    s, _ = ops.lif(current, LIFConstants())
    first, second = (torch.autograd.grad(s, current, upstream, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", ["sigmoid", "atan"])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_spikingjelly(reset, surrogate, detach, dtype):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    theirs_surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    functions = {"sigmoid": theirs_surrogate.Sigmoid(alpha=4.0), "atan": theirs_surrogate.ATan(alpha=2.0)}
    theirs = neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_threshold=1.0,
        v_reset=None if reset == "soft" else 0.0,
        surrogate_function=functions[surrogate],
        detach_reset=detach,
        step_mode="m",
    )
    upstream = currents(8, 4, seed=1).to(dtype)
    ours_in = (1.5 * currents(8, 4, n=50)[:, :, ::10]).to(dtype).requires_grad_()
    theirs_in = ours_in.detach().clone().requires_grad_()
    ours, v = ops.lif(ours_in, LIFConstants(reset=reset, surrogate=surrogate, detach_reset=detach))
    expected = theirs(theirs_in)
    assert 0.2 < expected.mean() < 0.8
    assert torch.equal(ours, expected)
    tolerance = 1e-13 if dtype == torch.float64 else 2e-6
    assert_agree(v, theirs.v, tolerance)
    ours.backward(upstream)
    expected.backward(upstream)
    assert_agree(ours_in.grad, theirs_in.grad, tolerance)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tau": 0.5}, r"must be >= 1, got 0\.5"),
        ({"tau": float("nan")}, "must be >= 1, got nan"),
        ({"tau": "2"}, r"tau .* must be >= 1, got '2'"),
        ({"theta": 0.0}, r"must be > 0 and finite, got 0\.0"),
        ({"theta": float("inf")}, "theta .* must be > 0 and finite, got inf"),
        ({"alpha": -1.0}, r"alpha .* surrogate sigmoid and must be > 0 and finite, got -1\.0"),
        ({"alpha": 0.0}, r"alpha .* must be > 0 and finite, got 0\.0"),
        ({"alpha": float("nan")}, "alpha .* must be > 0 and finite, got nan"),
        ({"alpha": float("inf")}, "alpha .* must be > 0 and finite, got inf"),
        ({"alpha": -0.1, "surrogate": "leaky_relu"}, r"alpha .* must be >= 0 and finite, got -0\.1"),
        ({"detach_reset": "no"}, "detach_reset must be True or False, got 'no'"),
        ({"reset": "none"}, "got 'none'"),
        ({"surrogate": "step"}, "unknown surrogate 'step'"),
    ],
)
def test_constants_out_of_range_are_named(wrong, message):
    for build in (LIFConstants, eisnn.LIF):
        with pytest.raises(ValueError, match=message):
            build(**wrong)


def test_a_leaky_relu_may_pass_nothing_below_the_threshold():
    assert LIFConstants(surrogate="leaky_relu", alpha=0.0) == LIFConstants(surrogate="leaky_relu", alpha=0)
    assert LIFConstants(surrogate="leaky_relu").width == 0


@pytest.mark.parametrize(
    ("state", "given"),
    [
        (torch.zeros(1, 5), r"float32 of shape \[1, 5\]"),
        (torch.zeros(2, 5, dtype=torch.int64), r"int64 of shape \[2, 5\]"),
        (torch.tensor(0.0), r"shape \[\]"),
        (0.0, "float"),
        ((torch.zeros(2, 5),), "tuple"),
    ],
)
def test_the_module_takes_a_state_of_the_shape_of_one_step(state, given):
    with pytest.raises(ValueError, match=rf"here of shape \[2, 5\], got .*{given}"):
        eisnn.LIF()(currents(3, 2), state=state)


def test_the_function_takes_shapes_that_fit():
    current = torch.rand(3, 64, 100)
    with pytest.raises(ValueError, match=r"here of shape \[64, 100\], got torch\.float32 of shape \[2, 100\]"):
        ops.lif(current, LIFConstants(), torch.rand(2, 100))
    for steps in (2, 5):
        with pytest.raises(ValueError, match=rf"lif: the first axis is time and must be time_steps={steps}, or 1"):
            ops.lif(current, LIFConstants(), time_steps=steps)
    for steps in (0, True, 2.5):
        with pytest.raises(ValueError, match=f"time_steps must be an int >= 1, got {steps}"):
            ops.lif(current[:1], LIFConstants(), time_steps=steps)


def test_tau_of_one_has_no_memory():
    current = currents(5, 2)
    s, _ = ops.lif(current, LIFConstants(tau=1))
    assert torch.equal(s, (current >= 1).double())


def test_the_module_is_the_function():
    module = eisnn.LIF(tau=3.0, theta=0.5, reset="hard", surrogate="atan", alpha=1.0, detach_reset=False)
    current, state = currents(4, 2), currents(1, 2, seed=3)[0]
    expected = ops.lif(current, LIFConstants(3.0, 0.5, "hard", "atan", 1.0, False), state)
    s, v = module(current, state=state, return_state=True)
    assert torch.equal(s, expected[0])
    assert torch.equal(v, expected[1])
    assert torch.equal(module(current, state=state), s)
    zero = module.initial_state(current)
    assert torch.equal(zero, torch.zeros(2, 5, dtype=torch.float64))
    assert torch.equal(module(current, state=zero), module(current))
    assert torch.equal(module(current[:1], time_steps=4), module(current[:1].repeat(4, 1, 1)))


def test_the_module_holds_nothing_that_changes():
    module = eisnn.LIF()
    before = copy.deepcopy(module.__dict__)
    first = module(currents(4, 3))
    module(currents(2, 9, seed=1))  # another length and batch size: there is nothing to reset
    assert module.state_dict() == {}
    assert module.__dict__ == before
    assert torch.equal(module(currents(4, 3)), first)
