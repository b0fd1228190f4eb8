"""The circuit as written and folded; its gradients by hand, by finite differences and by its symmetries."""

import itertools

import pytest
import torch
from circuits import PARAMETERS, WEIGHTS, Case, assert_agree, cases, circuit, gradients, rng, spikes
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.ops.weights.matmul import matmul

FORMS = [EF.ei_circuit, ops.ei_circuit]
READOUTS = [EF.ei_readout, ops.ei_readout]


def random_conv(dead: float = 0.0, rate: float = 0.1, seed: int = 0) -> Case:
    """A convolution with silent patches; no sample is silent."""
    return Case(
        ops.Conv((2, 1), (1, 2), (1, 2)),
        spikes((2, 2, 3, 9, 8), rate, seed),
        circuit(8, 2, (3, 3, 2), seed, dead),
    )


def random_dense(dead: float = 0.0, rate: float = 0.3, seed: int = 0) -> Case:
    return Case(ops.Dense(), spikes((3, 4, 20), rate, seed), circuit(12, 3, (20,), seed, dead))


# ---------------------------------------------------------------------------------------------- as written


def test_hand_worked_example():
    """d = 2, n_E = 2, n_I = 1, x = (1, 0.5): all five currents and I_E with round numbers."""
    values = {
        "weight_ee": [[1.0, 2.0], [0.5, 1.0]],
        "weight_ie": [[0.5, 1.0]],
        "weight_ei": [[0.5], [2.0]],
        "gain_i": [0.25],
        "gain_e": [1.0, 3.0],
        "bias": [0.5, -1.0],
    }
    parameters = {k: torch.tensor(v) for k, v in values.items()}
    x = torch.tensor([[[1.0, 0.5]]])
    currents = EF.ei_currents(x, *[parameters[k] for k in PARAMETERS[:4]], ops.Dense())
    assert currents.i_ee.tolist() == [[[2.0, 1.0]]]
    assert currents.i_sub.tolist() == [[[0.5, 2.0]]]
    assert currents.i_div.tolist() == [[[0.125, 0.5]]]
    for form in FORMS:  # 1.5 / 0.125 + 0.5; 3 (-1 / 0.5) - 1
        assert form(x, **parameters, connection=ops.Dense()).tolist() == [[[12.5, -7.0]]]
    for form in READOUTS:
        assert form(x, *[parameters[k] for k in WEIGHTS], connection=ops.Dense()).tolist() == [[[1.5, -1.0]]]


def test_the_inhibitory_neuron_has_derivative_one_at_zero():
    """A ReLU with derivative 0 there would cut the gradient of everything silent."""
    x = torch.zeros(1, 1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    p = circuit(4, 2, (3, 1, 1))
    currents = EF.ei_currents(x, *[p[k] for k in PARAMETERS[:4]], ops.Conv())
    for current, weight in [
        (currents.i_sub, p["weight_ei"] @ p["weight_ie"].flatten(1)),
        (currents.i_div, (p["weight_ei"] * p["gain_i"]) @ p["weight_ie"].flatten(1)),
    ]:
        (grad,) = torch.autograd.grad(current.sum(), x, retain_graph=True)
        assert_agree(grad[0, 0, :, 2, 1], weight.sum(0), 1e-14)


@settings(max_examples=150)
@given(case=cases())
def test_folded_equals_as_written_in_value_and_every_gradient(case):
    outs, grads = [], []
    for form in FORMS:
        leaves = case.leaves()
        outs.append(form(**leaves, connection=case.connection))
        grads.append(gradients(outs[-1], leaves))
    assert_agree(outs[1], outs[0], 1e-12)
    # gradients that cancel to 0 are as exact as the others
    largest = max(float(g.abs().max()) for g in grads[0].values())
    for name in ("x", *PARAMETERS):
        assert_agree(grads[1][name], grads[0][name], 1e-12, scale=0.01 * largest)


def i_div_of(case: Case) -> Tensor:
    return EF.ei_currents(case.x, *[case.parameters[k] for k in PARAMETERS[:4]], case.connection).i_div


@given(case=cases())
def test_folded_readout_equals_as_written(case):
    outs, grads = [], []
    for form in READOUTS:
        leaves = {k: v for k, v in case.leaves().items() if k in ("x", *WEIGHTS)}
        outs.append(form(**leaves, connection=case.connection))
        grads.append(gradients(outs[-1], leaves))
    assert_agree(outs[1], outs[0], 1e-12, scale=1)
    for name in ("x", *WEIGHTS):
        assert_agree(grads[1][name], grads[0][name], 1e-12, scale=1)


@pytest.mark.parametrize("kind", ["circuit", "readout"])
def test_in_float32_the_folded_form_is_the_more_accurate(kind):
    """At 512 channels `I_EE - I_sub` loses digits to cancellation; `W x` with the folded W does not."""
    d = 512 * 9
    p = circuit(512, 128, (512, 3, 3), dtype=torch.float32)
    p["weight_ei"] = torch.full((512, 128), 1 / 128)
    x = spikes((1, 2, 512, 5, 5), 0.2, dtype=torch.float32)
    connection = ops.Conv(padding=(1, 1))
    exact = {k: v.double() for k, v in p.items()}
    if kind == "circuit":
        five = EF.ei_currents(x, *[p[k] for k in PARAMETERS[:4]], connection)
        naive = five.i_ee - five.i_sub
        folded = ops.folded_currents(x, *[p[k] for k in PARAMETERS[:4]], connection).balanced
        truth = ops.folded_currents(x.double(), *[exact[k] for k in PARAMETERS[:4]], connection).balanced
    else:
        connection = ops.Dense()
        x = spikes((1, 64, d), 0.2, dtype=torch.float32)
        weights = [p["weight_ee"].flatten(1), p["weight_ie"].flatten(1), p["weight_ei"]]
        naive, folded = (form(x, *weights, connection=connection) for form in READOUTS)
        truth = EF.ei_readout(x.double(), *[w.double() for w in weights], connection=connection)
    assert_agree(folded, truth, 2e-6)
    assert_agree(naive, truth, 3e-5)
    errors = [(form.double() - truth).square().mean() for form in (folded, naive)]
    assert errors[0] < 0.25 * errors[1]


def test_fold_is_computed_in_float32_also_in_low_precision():
    p = circuit(64, 16, (32, 3, 3))
    exact = ops.fold(*[p[k] for k in WEIGHTS])
    assert_agree(exact, p["weight_ee"] - (p["weight_ei"] @ p["weight_ie"].flatten(1)).view(64, 32, 3, 3), 1e-14)
    single = [p[k].float() for k in WEIGHTS]
    outside = ops.fold(*single)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.fold(*single)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    half = [w.bfloat16() for w in single]
    folded = ops.fold(*half)
    assert folded.dtype == torch.bfloat16
    assert torch.equal(folded, ops.fold(*[w.float() for w in half]).bfloat16())  # rounded once, at the end


# ---------------------------------------------------------------------------------------------- gradients


def patches(x: Tensor, connection: EF.Connection, weight: Tensor) -> Tensor:
    """`[T, B, ...]` -> `[rows, d]`: one row for each output position."""
    if isinstance(connection, EF.Dense):
        return x.flatten(0, 1)
    columns = F.unfold(x.flatten(0, 1), weight.shape[2:], connection.dilation, connection.padding, connection.stride)
    return columns.transpose(1, 2).flatten(0, 1)


def unpatch(rows: Tensor, x: Tensor, connection: EF.Connection, weight: Tensor) -> Tensor:
    """The transpose of `patches`."""
    if isinstance(connection, EF.Dense):
        return rows.view(x.shape)
    columns = rows.unflatten(0, (x.shape[0] * x.shape[1], -1)).transpose(1, 2)
    c = connection
    return F.fold(columns, x.shape[-2:], weight.shape[2:], c.dilation, c.padding, c.stride).view(x.shape)


def rows_of(maps: Tensor) -> Tensor:
    """`[T, B, n, ...]` -> `[rows, n]`, in the order of `patches`."""
    return maps.flatten(0, 1).flatten(2).transpose(1, 2).flatten(0, 1) if maps.ndim > 3 else maps.flatten(0, 1)


def written_gradients(case: Case, upstream: Tensor) -> dict[str, Tensor]:
    """Eqs. (46)-(52), line by line."""
    p, c = case.parameters, case.connection
    currents = EF.ei_currents(case.x, *[p[k] for k in PARAMETERS[:4]], c)
    x = patches(case.x, c, p["weight_ee"])
    w_ee, w_ie, w_ei, d = p["weight_ee"].flatten(1), p["weight_ie"].flatten(1), p["weight_ei"], x.shape[1]
    delta, divisor = rows_of(upstream), rows_of(EF.stabilize(currents.i_div))
    q = rows_of(currents.i_ee - currents.i_sub) / divisor
    u = x @ w_ie.T
    nbar = p["gain_e"] * delta / divisor
    dbar = -nbar * q
    ubar = -nbar @ w_ei + p["gain_i"] * (dbar @ w_ei)
    return {
        "x": unpatch(nbar @ w_ee + ubar @ w_ie, case.x, c, p["weight_ee"]),
        "weight_ee": (nbar.T @ x).view_as(p["weight_ee"]),
        "weight_ie": (ubar.T @ x).view_as(p["weight_ie"]),
        "weight_ei": (-nbar.T @ u + dbar.T @ (p["gain_i"] * u)) / d,
        "gain_i": ((dbar @ w_ei) * u).sum(0),
        "gain_e": (delta * q).sum(0),
        "bias": delta.sum(0),
    }


def folded_gradients(case: Case, upstream: Tensor) -> dict[str, Tensor]:
    """(M8), the backward pass of the folded form."""
    p, c = case.parameters, case.connection
    currents = ops.folded_currents(case.x, *[p[k] for k in PARAMETERS[:4]], c)
    x = patches(case.x, c, p["weight_ee"])
    w_ee, w_ie, w_ei, d = p["weight_ee"].flatten(1), p["weight_ie"].flatten(1), p["weight_ei"], x.shape[1]
    delta, divisor = rows_of(upstream), rows_of(EF.stabilize(currents.i_div))
    q, u = rows_of(currents.balanced) / divisor, x @ w_ie.T
    kernel, m = torch.cat([w_ee - w_ei @ w_ie, w_ie]), w_ei * p["gain_i"]
    nbar = p["gain_e"] * delta / divisor
    dbar = -nbar * q
    through = torch.cat([nbar, dbar @ m], 1)
    g_w, g_b = (through.T @ x).split([len(w_ee), len(w_ie)])
    d_m = dbar.T @ u
    return {
        "x": unpatch(through @ kernel, case.x, c, p["weight_ee"]),
        "weight_ee": g_w.view_as(p["weight_ee"]),
        "weight_ie": (g_b - w_ei.T @ g_w).view_as(p["weight_ie"]),
        "weight_ei": (-g_w @ w_ie.T + d_m * p["gain_i"]) / d,
        "gain_i": (w_ei * d_m).sum(0),
        "gain_e": (delta * q).sum(0),
        "bias": delta.sum(0),
    }


@pytest.mark.parametrize("dead", [0.0, 0.6])
@pytest.mark.parametrize("make", [random_conv, random_dense])
@pytest.mark.parametrize("by_hand", [written_gradients, folded_gradients])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_derived_by_hand(form, by_hand, make, dead):
    case = make(dead)
    leaves = case.leaves()
    out = form(**leaves, connection=case.connection)
    upstream = torch.randn(out.shape, generator=rng(5), dtype=torch.float64)
    ours = torch.autograd.grad(out, list(leaves.values()), upstream)
    expected = by_hand(case, upstream)
    assert make is random_dense or (i_div_of(case) == 0).any()
    for name, grad in zip(leaves, ours, strict=True):
        assert_agree(grad, expected[name], 1e-12)


def without_the_factor(form, p: dict[str, Tensor]):
    """`form` with the gradient scale 1/d of `weight_ei` taken back: what remains is the true gradient."""
    d = EF.fan_in(p["weight_ee"])

    def f(x: Tensor, *rest: Tensor) -> Tensor:
        weight_ee, weight_ie, weight_ei, *others = rest
        return form(x, weight_ee, weight_ie, EF.scale_gradient(weight_ei, d), *others)

    return f


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dense", [True, False])
def test_gradients_against_finite_differences(form, dense):
    """Where no divisive current is 0, so that the function is smooth; `weight_ei` times d, so once 1/d exactly."""
    connection: EF.Connection = ops.Dense() if dense else ops.Conv((2, 1), (1, 0), (1, 2))
    p = circuit(4, 2, (5,) if dense else (2, 3, 2))
    x = torch.rand((2, 2, 5) if dense else (2, 1, 2, 4, 4), generator=rng(1), dtype=torch.float64) + 0.2
    inputs = [v.clone().requires_grad_() for v in (x, *p.values())]
    f = without_the_factor(form, p)
    assert torch.autograd.gradcheck(lambda *a: f(*a, connection), inputs)


@pytest.mark.parametrize("form", READOUTS)
def test_readout_gradients_against_finite_differences(form):
    p = {k: circuit(4, 2, (5,))[k] for k in WEIGHTS}
    x = spikes((2, 3, 5), 0.5)
    inputs = [v.clone().requires_grad_() for v in (x, *p.values())]
    f = without_the_factor(form, p)
    assert torch.autograd.gradcheck(lambda *a: f(*a, ops.Dense()), inputs)


@pytest.mark.parametrize("form", [*FORMS, *READOUTS])
def test_the_gradient_of_weight_ei_is_scaled_by_one_over_d_exactly_once(form, monkeypatch):
    case = random_conv()
    names = ("x", *PARAMETERS) if form in FORMS else ("x", *WEIGHTS)

    def grads() -> dict[str, Tensor]:
        leaves = {k: v for k, v in case.leaves().items() if k in names}
        return gradients(form(**leaves, connection=case.connection), leaves)

    scaled = grads()
    monkeypatch.setattr("eisnn.functional.circuit._ScaleGradient.backward", lambda ctx, grad: (grad, None))
    plain = grads()
    assert_agree(18 * scaled["weight_ei"], plain["weight_ei"], 1e-14)  # d = 3 * 3 * 2
    for name in names:
        assert name == "weight_ei" or torch.equal(scaled[name], plain[name])


def test_scale_gradient_is_the_identity_forward():
    w = torch.randn(3, 2, generator=rng(0), requires_grad=True)
    out = EF.scale_gradient(w, 0.25)
    assert torch.equal(out, w)
    out.backward(torch.full((3, 2), 8.0))
    assert torch.equal(w.grad, torch.full((3, 2), 2.0))


def inner(leaves: dict[str, Tensor], grads: dict[str, Tensor], name: str) -> tuple[float, float]:
    """`<p, dp>` and the sum of the magnitudes of its terms."""
    terms = leaves[name].detach() * grads[name]
    return float(terms.sum()), float(terms.abs().sum())


@settings(max_examples=60)
@pytest.mark.parametrize("form", FORMS)
@given(case=cases(dead=False))
def test_symmetries(form, case):
    """`I_E` does not change under `x -> c x`, `(W_EE, W_IE) -> c(...)`, `(W_EI, W_IE) -> (c W_EI, W_IE / c)` and
    `(g_I, g_E) -> c(...)`: the gradients are orthogonal to those directions, silent sites or not."""
    leaves = case.leaves()
    grads = gradients(form(**leaves, connection=case.connection), leaves)
    grads["weight_ei"] = grads["weight_ei"] * EF.fan_in(leaves["weight_ee"])  # before the 1/d
    product = {name: inner(leaves, grads, name) for name in ("x", *PARAMETERS)}

    def zero(total: float, *names: str) -> None:
        assert abs(total) <= 1e-12 * sum(product[n][1] for n in names) + 1e-13 * product["gain_e"][1]

    zero(product["x"][0], "x")
    zero(product["weight_ee"][0] + product["weight_ie"][0], "weight_ee", "weight_ie")
    zero(product["weight_ei"][0] - product["weight_ie"][0], "weight_ei", "weight_ie")
    zero(product["gain_i"][0] + product["gain_e"][0], "gain_i", "gain_e")


@pytest.mark.parametrize("form", FORMS)
def test_with_partly_dead_sites_only_one_symmetry_survives(form):
    case = random_conv(dead=0.6)
    leaves = case.leaves()
    currents = EF.ei_currents(case.x, *[case.parameters[k] for k in PARAMETERS[:4]], case.connection)
    assert ((currents.i_div == 0) & (currents.i_ee != currents.i_sub)).any()
    grads = gradients(form(**leaves, connection=case.connection), leaves)
    grads["weight_ei"] = grads["weight_ei"] * EF.fan_in(leaves["weight_ee"])
    product = {name: inner(leaves, grads, name) for name in ("x", *PARAMETERS)}
    assert abs(product["weight_ei"][0] - product["weight_ie"][0]) <= 1e-12 * product["weight_ie"][1]
    assert abs(product["x"][0]) > 1e-3 * product["x"][1]


@settings(max_examples=50)
@pytest.mark.parametrize("form", FORMS)
@given(case=cases(), c=st.floats(0.1, 10))
def test_invariances(form, case, c):
    p = case.parameters
    out = form(case.x, **p, connection=case.connection)
    for x, changed in [
        (case.x * c, {}),
        (case.x, {"weight_ee": p["weight_ee"] * c, "weight_ie": p["weight_ie"] * c}),
        (case.x, {"weight_ei": p["weight_ei"] * c, "weight_ie": p["weight_ie"] / c}),
        (case.x, {"gain_i": p["gain_i"] * c, "gain_e": p["gain_e"] * c}),
    ]:
        assert_agree(form(x, **{**p, **changed}, connection=case.connection), out, 1e-11)


# ---------------------------------------------------------------------------------------------- samples and zeros


@settings(max_examples=50)
@pytest.mark.parametrize("form", FORMS)
@given(case=cases())
def test_a_sample_never_depends_on_the_others(form, case):
    """The minimum of the stabilisation is taken over one sample, never over the batch."""
    assume(case.x.shape[1] > 1)
    out = form(case.x, **case.parameters, connection=case.connection)
    alone = form(case.x[:1, :1], **case.parameters, connection=case.connection)
    assert_agree(alone, out[:1, :1], 1e-12, scale=float(out[:1, :1].abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rate", [0.0, 0.002, 0.3])
def test_the_divisive_current_of_a_silent_patch_is_exactly_zero(rate, memory, dtype):
    p = circuit(64, 16, (64, 3, 3), dtype=dtype)
    x = spikes((4, 64, 20, 20), rate, dtype=dtype)
    x[:, :, 8:16, 4:15] = 0
    active = F.max_pool2d(x.amax(1).float(), 3, 1, 1) > 0  # [B, H, W]: any spike in the receptive field
    sequence = x.to(memory_format=memory).unflatten(0, (2, 2))
    weights = [p[k].to(memory_format=memory) if p[k].ndim == 4 else p[k] for k in PARAMETERS[:4]]
    for current in (EF.ei_currents, ops.folded_currents):
        i_div = current(sequence, *weights, ops.Conv(padding=(1, 1))).i_div.flatten(0, 1)
        assert torch.equal(i_div > 0, active[:, None].expand_as(i_div))
        assert (i_div >= 0).all()


def test_a_connection_takes_the_geometry_of_conv2d():
    weight = torch.rand(6, 3, 3, 2, generator=rng(0))
    x = torch.rand(2, 4, 3, 9, 8, generator=rng(1))
    connection = ops.Conv((2, 1), (1, 0), (1, 3))
    expected = F.conv2d(x[1], weight, stride=(2, 1), padding=(1, 0), dilation=(1, 3))
    assert_agree(connection.feedforward(x, weight)[1], expected, 1e-6)
    assert EF.fan_in(weight) == 18
    assert EF.fan_in(torch.zeros(5, 7)) == 7
    assert eisnn.EIConv2d(3, 6, (3, 2), (2, 1), (1, 0), (1, 3)).connection == connection


@pytest.mark.parametrize("shape", [(3, 3, 2), (1, 3, 3), (4, 1, 1), (4, 1, 3)])
def test_the_memory_format_of_each_weight_does_not_matter(shape):
    g = rng(0)
    x = torch.rand(2, 3, shape[0], 6, 7, generator=g, dtype=torch.float64)
    tensors = [torch.rand(n, *shape, generator=g, dtype=torch.float64) for n in (8, 2)]
    ei, gain = torch.rand(8, 2, generator=g, dtype=torch.float64), torch.rand(2, generator=g, dtype=torch.float64)
    results = []
    for formats in itertools.product((torch.contiguous_format, torch.channels_last), repeat=3):
        ee, ie = (w.to(memory_format=f).detach().requires_grad_() for w, f in zip(tensors, formats, strict=False))
        ei_leaf = ei.clone().requires_grad_()
        y = x.flatten(0, 1).to(memory_format=formats[2]).unflatten(0, (2, 3))
        currents, weight = ops.stacked_currents(y, ee, ie, ei_leaf, gain, ops.Conv())
        loss = (currents * torch.linspace(0, 1, currents.numel(), dtype=x.dtype).view(currents.shape)).sum()
        results.append([currents, *torch.autograd.grad(loss + weight.sum(), [ee, ie, ei_leaf])])
        assert_agree(ops.fold(ee, ie, ei), ops.fold(*tensors, ei), 1e-14)
    for result in results[1:]:
        for ours, first in zip(result, results[0], strict=True):
            assert_agree(ours, first, 1e-12)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("steps", [1, 4, 300])  # fewer positions than inputs, as many, more: two ways back
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_stacked_projection_has_exact_gradients(dense, steps, dtype, channels_last):
    g = rng(steps)
    shape, connection = ((48,), ops.Dense()) if dense else ((6, 3, 3), ops.Conv())
    x = torch.rand(steps, 2, *(shape if dense else (6, 4, 3)), generator=g, dtype=torch.float64)
    tensors = [x, *(torch.rand(n, *shape, generator=g, dtype=torch.float64) / 9 for n in (16, 4))]
    tensors.append(torch.rand(16, 4, generator=g, dtype=torch.float64) / 4)
    upstream = torch.randn(steps, 2, 20, *(() if dense else (2, 1)), generator=g, dtype=torch.float64)

    def gradients(dtype, project):
        leaves = [t.to(dtype, copy=True) for t in tensors]
        if channels_last and not dense:
            leaves[0] = leaves[0].movedim(2, -1).contiguous().movedim(-1, 2)
            leaves[1:3] = [w.contiguous(memory_format=torch.channels_last) for w in leaves[1:3]]
        leaves = [t.requires_grad_() for t in leaves]
        return torch.autograd.grad(project(*leaves), leaves, upstream.to(dtype))

    def ours(x, ee, ie, ei):
        return ops.stacked_currents(x, ee, ie, ei, torch.ones(4, dtype=x.dtype), connection)[0]

    def as_written(x, ee, ie, ei):
        i_ie = connection.feedforward(x, ie)
        return torch.cat([connection.feedforward(x, ee) - EF.lateral(i_ie, ei), i_ie], 2)

    truth = gradients(torch.float64, as_written)
    found = gradients(dtype, ours)
    factors = 1, 1, 1, EF.fan_in(tensors[1])  # E-I Prop scales the gradient of W_EI by 1/d
    for name, a, b, factor in zip(("x", "ee", "ie", "ei"), found, truth, factors, strict=True):
        error = (a.double() * factor - b).abs().max() / b.abs().max()
        assert error < (1e-13 if dtype == torch.float64 else 2e-6), (name, error)


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 4), (64, 33, 17), (3, 0, 4)])
def test_matmul(shape):
    m, k, n = shape
    a, b = torch.randn(m, k, generator=rng(1)), torch.randn(k, n, generator=rng(2))
    wide = torch.randn(m, 2 * k, generator=rng(3))[:, :k]
    for left in (a, a.T.contiguous().T, wide, a.double(), a.clone().requires_grad_()):
        for right in (b, b.T.contiguous().T):
            right = right.to(left.dtype)
            product = matmul(left, right)
            torch.testing.assert_close(product, left @ right)
            assert product.requires_grad == left.requires_grad
            if left.requires_grad:
                upstream = torch.randn(m, n, generator=rng(4))
                (grad,) = torch.autograd.grad(product, left, upstream)
                torch.testing.assert_close(grad, upstream @ right.T)
