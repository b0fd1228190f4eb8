"""Departures from the paper's circuit: what each keeps and what not, and that it stays an E-I circuit."""

import itertools

import pytest
import torch
from circuits import assert_agree, rng
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.nn import CircuitOptions
from eisnn.ops import backends, build
from eisnn.ops.weights.torch import ROWS

PLUS = [
    CircuitOptions(conserved=True),
    CircuitOptions(conserved=True, pooled=True),
    CircuitOptions(conserved=True, semisaturation=0.3, unit_variance=True),
    CircuitOptions(conserved=True, semisaturation=0.3, pooled=True, unit_variance=True),
    CircuitOptions(conserved=True, semisaturation=0.3, pooled=True, tapwise=True, unit_variance=True),
    CircuitOptions(conserved=True, semisaturation=0.3, pooled=True, tapwise=True, tightness=3, unit_variance=True),
]


def images(batch=8, size=8, seed=0, dtype=torch.float64):
    return torch.rand(batch, 3, size, size, generator=rng(seed), dtype=torch.float64).to(dtype)


def network(options, dtype=torch.float64, **changes):
    model = eisnn.create_model("convnet3", width=0.25, circuit_options=options, **changes).to(dtype)
    eisnn.ei_init_(model, images(dtype=dtype), generator=rng(1))
    return model


def train(model, optimizer, steps=3):
    eisnn.enforce_dale(optimizer, model)
    for step in range(steps):
        optimizer.zero_grad()
        x = images(seed=step, dtype=next(model.parameters()).dtype)
        nn.functional.cross_entropy(model(x), torch.arange(8)).backward()
        optimizer.step()


def effective(layer):
    """Conserved weights of a layer, and its folded rows."""
    raw = layer.weight_ee, layer.weight_ie, layer.weight_ei
    weights = EF.conserved_weights(*raw, layer.weights.total, tapwise=layer.weights.tapwise)
    return weights, EF.fix_norm(EF.fold(*weights), layer.weights.row_norm)


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.sampled_from([(4, 7), (3, 2, 3, 3), (1, 1)]))
def test_totals_are_conserved_and_signs_too(seed, total, shape):
    weight = (0.2 + torch.rand(shape, generator=rng(seed), dtype=torch.float64)).requires_grad_()
    scaled = EF.conserve(weight, total)
    torch.testing.assert_close(scaled.flatten(1).sum(1), torch.full((shape[0],), total, dtype=torch.float64))
    assert (scaled >= 0).all()
    grad = torch.autograd.grad(scaled, weight, torch.randn(shape, generator=rng(seed + 1), dtype=torch.float64))[0]
    along = (grad * weight).flatten(1).sum(1)  # a common factor of all synapses changes nothing
    assert along.abs().max() <= 1e-12 * total * shape[-1]


def test_a_neuron_without_synapses_stays_finite():
    weight = torch.rand(3, 4, dtype=torch.float64)
    weight[1] = 0
    weight.requires_grad_()
    scaled = EF.conserve(weight, 2.0)
    assert torch.equal(scaled[1], torch.zeros(4, dtype=torch.float64))
    normed = EF.fix_norm(weight, 2.0)
    grads = torch.autograd.grad((scaled + normed).sum(), weight)[0]
    assert grads.isfinite().all()


@pytest.mark.parametrize("options", PLUS)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_balance_norm_and_dale_hold_at_every_step(options, optimizer):
    model = network(options)
    optimizer = optimizer(model.parameters(), lr=0.05)
    for _ in range(3):
        train(model, optimizer, 1)
        assert eisnn.dale_violations(model) == {}
        for layer in model.layers:
            (ee, ie, ei), folded = effective(layer)
            total = layer.weights.total.expand(len(ee))
            torch.testing.assert_close(ee.flatten(1).sum(1), total)
            torch.testing.assert_close(ei.sum(1), torch.ones(len(ee), dtype=ee.dtype))
            assert folded.flatten(1).sum(1).abs().max() < 1e-10 * float(
                layer.weights.total
            )  # excitation equals inhibition
            torch.testing.assert_close(folded.flatten(1).norm(dim=1), layer.weights.row_norm.expand(len(ee)))
            assert min(w.min() for w in (ee, ie, ei)) >= 0
            assert layer.weights.sigma is None or layer.weights.sigma.min() >= layer.weights.lower_bounds["sigma"]


def acting(layer):
    """Totals of a layer's excitation and inhibition as it acts, `[n_E]`, in units of its R."""
    ee, ie, ei = layer.synapses()[:3]
    return ee.flatten(1).sum(1) / layer.weights.total, (ei @ ie.flatten(1)).sum(1) / layer.weights.total


def test_only_the_balance_is_exact_and_acting_totals_vary():
    model = network(PLUS[3])
    train(model, torch.optim.SGD(model.parameters(), lr=0.5), 5)
    for layer in model.layers:
        excitation, inhibition = acting(layer)
        assert_agree(excitation, inhibition, 1e-12)
        assert excitation.max() - excitation.min() > 0.1


@pytest.mark.parametrize(("tapwise", "shape"), [(False, (12,)), (False, (9, 3, 3)), (True, (9, 3, 3))])
def test_every_centred_matrix_of_the_norm_can_be_reached(tapwise, shape):
    """By non-negative weights, where the tightness of the balance is free: excitation of the rows plus a constant."""
    target = torch.randn(6, *shape, generator=rng(0), dtype=torch.float64)
    target = target - target.mean(1 if tapwise else tuple(range(1, target.ndim)), keepdim=True)
    target = EF.fix_norm(target, 0.58)
    excitation = 1 + 0.1 * target / target.abs().max()
    ones = torch.ones(2, *shape, dtype=torch.float64), torch.ones(6, 2, dtype=torch.float64)
    total, norm = torch.tensor(7.0, dtype=torch.float64), torch.tensor(0.58, dtype=torch.float64)
    gain = torch.ones(2, dtype=torch.float64)
    made = EF.conserved_synapses(excitation, *ones, gain, None, total, norm, pooled=True, tapwise=tapwise)
    assert min(weight.min() for weight in made[:4]) >= 0
    assert_agree(EF.fold(*made[:3]), target, 1e-12)
    assert (made[0].flatten(1).sum(1) > 1.5 * total).all()  # at the price of a tighter balance


def test_what_a_neuron_cannot_know_by_itself():
    """The strength of its own synapses depends on those of I neurons, its division on those of other E neurons."""
    layer = network(PLUS[3]).layers[1]
    before = layer.synapses()
    with torch.no_grad():
        layer.weight_ie[0] *= torch.rand(layer.weight_ie[0].shape, generator=rng(0), dtype=torch.float64)
        layer.weight_ei[0, 0] *= 3
    after = layer.synapses()
    scaled = after[0][1] / before[0][1]  # neuron 1, none of whose synapses has changed
    assert_agree(scaled, scaled.mean().expand_as(scaled), 1e-12)
    assert abs(scaled.mean() - 1) > 1e-3
    assert not torch.allclose(after[3][1], before[3][1], rtol=1e-3)


def test_the_pooled_current_is_nearly_the_mean_activity_in_the_field():
    x = (torch.rand(1, 8, 32, 8, 8, generator=rng(0)) < 0.2).double()
    x = x * torch.rand(1, 8, 1, 8, 8, generator=rng(1))  # places differ in how active they are, as in images
    layer = eisnn.EIConv2d(32, 64, 3, options=PLUS[3]).double()
    eisnn.ei_init_(layer, x, generator=rng(2))
    i_ee, i_sub, i_div = (i[:, :, 0] for i in EF.currents_of(x, layer.synapses(), layer.connection))
    mean = layer.connection.feedforward(x, torch.ones_like(layer.weight_ee[:1]))[:, :, 0]
    seen = torch.stack([current.flatten() for current in (mean, i_div, i_ee - i_sub)])
    with_division, with_balanced_current = torch.corrcoef(seen)[0, 1:]
    assert with_division > 0.97
    assert with_balanced_current.abs() < 0.3


def test_tapwise_balance_holds_at_the_border_too():
    """Input that is the same in all channels and everywhere drives no neuron anywhere, in no layer but the first."""
    model = network(PLUS[4])
    train(model, torch.optim.SGD(model.parameters(), lr=0.05))
    assert [layer.weights.tapwise for layer in model.layers] == [False, True, True]
    for layer in model.layers[1:]:
        x = torch.ones(1, 1, layer.weight_ee.shape[1], 4, 4, dtype=torch.float64)
        balanced, _ = EF.split_currents(*layer.currents(x))
        assert balanced.abs().max() < 1e-10 * float(layer.weights.total)
    layer = network(PLUS[3]).layers[1]  # the balance of the whole field leaves the border out
    balanced, _ = EF.split_currents(*layer.currents(x[:, :, : layer.weight_ee.shape[1]]))
    assert balanced[..., 1:-1, 1:-1].abs().max() < 1e-10 * float(layer.weights.total)
    assert balanced.abs().max() > 0.01 * float(layer.weights.total)


def as_written(layer, x):
    i_ee, i_sub, i_div = EF.currents_of(x, layer.synapses(), layer.connection)
    assert min(i.min() for i in (i_ee, i_sub, i_div)) >= 0
    return EF.integrate(i_ee - i_sub, i_div, layer.gain_e, layer.bias)


@pytest.mark.parametrize("options", PLUS)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("withered", [False, True])
def test_equals_the_circuit_written_out(options, channels_last, withered):
    model = network(options)
    train(model, torch.optim.SGD(model.parameters(), lr=0.05))
    layer = model.layers[1]
    if withered:  # neurons that have lost nearly all or all of their synapses
        with torch.no_grad():
            for weight in (layer.weight_ee, layer.weight_ie, layer.weight_ei):
                weight[0] *= 1e-3
            layer.weight_ee[1] = 0
    x = torch.rand(3, 2, layer.weight_ee.shape[1], 4, 4, generator=rng(4), dtype=torch.float64)
    if channels_last:
        layer.to(memory_format=torch.channels_last)
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    x.requires_grad_()
    leaves = [x, *layer.parameters()]
    ours, expected = layer.integrated(x), as_written(layer, x)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn(ours.shape, generator=rng(5), dtype=torch.float64)
    found, truth = (torch.autograd.grad(i_e, leaves, upstream) for i_e in (ours, expected))
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    assert torch.equal(layer(x), layer.neuron(ours))


@pytest.mark.parametrize("options", PLUS)
def test_an_image_does_not_see_the_others(options):
    """No statistics over a batch, in training either."""
    model = network(options).train()
    x = images(6)
    alone = torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(model(x), alone, rtol=1e-12, atol=1e-12)
    changed = x.clone()
    changed[1:] = 1 - changed[1:]
    torch.testing.assert_close(model(changed)[0], alone[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conserved", [False, True])
def test_unit_variance_at_the_start(conserved):
    model = eisnn.create_model("convnet3", circuit_options=CircuitOptions(conserved=conserved, unit_variance=True))
    x = images(16, dtype=torch.float32)
    eisnn.ei_init_(model, x, generator=rng(2))
    seen = {}
    for name, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(
            lambda m, args, name=name: seen.update({name: m.integrated(args[0]).detach().std()})
        )
    model(x)
    assert len(seen) == 3
    assert all(abs(float(std) - 1) < 1e-3 for std in seen.values()), seen


def test_semisaturation_bounds_the_gradient():
    model = network(PLUS[3])
    layer = model.layers[0]
    currents, weight = layer.currents(images()[None])
    balanced, i_div = EF.split_currents(currents.detach(), weight.detach())
    balanced.requires_grad_()
    i_e = EF.integrate(balanced, i_div, layer.gain_e, layer.bias)
    (grad,) = torch.autograd.grad(i_e.sum(), balanced)
    bound = layer.gain_e / (layer.weights.sigma * layer.weights.sigma_unit)
    assert (grad <= EF.per_neuron(bound, grad) * (1 + 1e-12)).all()
    silent = layer.integrated(torch.zeros_like(images()[None]))
    torch.testing.assert_close(silent, EF.per_neuron(layer.bias, silent).expand_as(silent))


def test_the_readout_is_balanced_and_its_gradients_centred():
    model = network(PLUS[3])
    readout = model.readout
    excitation, inhibition = readout.weight_ee.sum(1), (readout.weight_ei @ readout.weight_ie).sum(1)
    torch.testing.assert_close(excitation, inhibition)
    nn.functional.cross_entropy(model(images()), torch.arange(8)).backward()
    for weight in (readout.weight_ee, readout.weight_ie):
        assert weight.grad.abs().max() > 0
        assert weight.grad.mean(1).abs().max() < 1e-12


@pytest.mark.parametrize("options", PLUS)
def test_folded_and_loaded_networks_are_equal(options):
    model = network(options, torch.float32)
    train(model, torch.optim.SGD(model.parameters(), lr=0.05))
    x = images(dtype=torch.float32)
    again = eisnn.create_model("convnet3", width=0.25, circuit_options=options)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))
    torch.testing.assert_close(eisnn.fold(model)(x), model(x))


@pytest.mark.parametrize("name", ["weight_ie", "weights.sigma"])
def test_negative_weights_leave_a_layer_as_it_was_inside_too(name):
    model, other = network(PLUS[3]), network(PLUS[3])
    train(other, torch.optim.SGD(other.parameters(), lr=0.05))
    layer, state = model.layers[1], other.layers[1].state_dict()
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    state[name].view(-1)[0] = -1
    with pytest.raises(RuntimeError, match=rf"{name} violates Dale's law: 1 negative or NaN entries"):
        layer.load_state_dict(state)
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())


def test_a_failed_initialisation_leaves_what_was_conserved():
    model = network(PLUS[3])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="zero everywhere"):
        eisnn.ei_init_(model, torch.zeros(4, 3, 8, 8, dtype=torch.float64), redraw=True)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("pooled", [False, True])
def test_tightness_multiplies_the_totals_and_nothing_that_divides(pooled):
    loose, tight = (
        network(CircuitOptions(conserved=True, semisaturation=0.3, pooled=pooled, tightness=k)).layers[0]
        for k in (1, 4)
    )
    assert_agree(tight.weights.total, 4 * loose.weights.total, 1e-12)
    uniform = torch.ones(1, 1, 3, 5, 5, dtype=torch.float64)
    of_loose, of_tight = (EF.currents_of(uniform, layer.synapses(), layer.connection) for layer in (loose, tight))
    assert_agree(of_tight.i_div[..., 2, 2], of_loose.i_div[..., 2, 2], 1e-12)
    shift = tight.weight_ee - loose.weight_ee  # the same draw, farther from 0
    assert_agree(shift, shift.mean().expand_as(shift), 1e-12)
    assert shift.mean() > 0


def test_tight_totals_are_conserved_by_shifting_weights_and_not_by_scaling_them():
    """Of a step of gradient descent, the part that changes all weights of a neuron alike."""
    common = []
    for tightness in (1, 4, 100):
        layer = network(CircuitOptions(conserved=True, tightness=tightness)).layers[1]
        upstream = torch.randn(layer.weight_ee.shape, generator=rng(2), dtype=torch.float64)
        conserved = EF.conserve(layer.weight_ee, layer.weights.total)
        grad = torch.autograd.grad(conserved, layer.weight_ee, upstream)[0].flatten(1)
        common.append(float(grad.sum(1).norm() / grad.norm()))
    assert common[0] > 2 * common[1] > 20 * common[2]


@pytest.mark.parametrize("options", PLUS)
def test_bf16_autocast_trains(options):
    model = network(options, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images(dtype=torch.float32))
    nn.functional.cross_entropy(logits.float(), torch.arange(8)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_options_that_need_another_are_refused():
    for share, pooled, tapwise in itertools.product([0.0, 0.3], [False, True], [False, True]):
        if share or pooled or tapwise:
            with pytest.raises(ValueError, match="need conserved=True"):
                CircuitOptions(semisaturation=share, pooled=pooled, tapwise=tapwise)
    with pytest.raises(ValueError, match="need conserved=True"):
        CircuitOptions(tightness=2)
    for tightness in (0.5, 1001, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"a number from 1 to 1000, .*; got"):
            CircuitOptions(conserved=True, tightness=tightness)
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"in \[0, 1\)"):
            CircuitOptions(conserved=True, semisaturation=share)
    with pytest.raises(TypeError, match="does not take options"):
        eisnn.create_model("vgg8", circuit="bn", circuit_options=PLUS[0])


@pytest.mark.parametrize("tapwise", [False, True])
def test_the_norm_of_the_rows_is_what_the_folded_weights_have_at_the_start(tapwise):
    """Balanced tap by tap, the folded weights are others."""
    layer = eisnn.EIConv2d(8, 6, 3, neuron=None, options=CircuitOptions(conserved=True, tapwise=tapwise))
    eisnn.ei_init_(layer, torch.rand(1, 9, 8, 5, 5, generator=rng(0)), generator=rng(1))
    raw = layer.weight_ee, layer.weight_ie, layer.weight_ei
    folded = EF.fold(*EF.conserved_weights(*raw, layer.weights.total, tapwise=tapwise))
    assert float(layer.weights.row_norm) == pytest.approx(float(folded.flatten(1).square().sum(1).mean().sqrt()))


@pytest.mark.parametrize("kind", ["compiled", "triton"])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("tapwise", [False, True])
@pytest.mark.parametrize("inputs", [(7,), (5, 3, 2), (9, 1, 1), (37, 3, 3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_fast_row_operations_are_the_same(kind, pooled, tapwise, inputs, channels_last, monkeypatch):
    """Also of neurons that have lost nearly all of their weights."""
    if kind == "triton" and (not backends.HAS_TRITON or torch.cuda.is_available()):
        pytest.skip("for Triton's interpreter")
    if kind == "compiled" and build.library() is None:
        pytest.skip("no C++ compiler here")
    g = rng(0)
    ee, ie, ei = (
        torch.rand(*shape, generator=g, dtype=torch.float64) for shape in ((6, *inputs), (3, *inputs), (6, 3))
    )
    ee[1] = 0
    ee[2] *= 1e-5
    ie[0] *= 1e-5
    if channels_last and len(inputs) == 3:
        ee, ie = (w.contiguous(memory_format=torch.channels_last) for w in (ee, ie))
    total, row_norm = (torch.tensor(x, dtype=torch.float64) for x in (4.0, 1.5))
    sources = ee, ie, ei, torch.rand(3, generator=g, dtype=torch.float64), total, row_norm
    made = ops.ConservedKernel(pooled, tonic=True, tapwise=tapwise and len(inputs) == 3)
    results = []
    for served in ("torch", kind):
        for name in ROWS.serves:
            monkeypatch.setitem(ROWS.serves, name, lambda _, there=name == served: there)
        kernel, kept = made.make(*sources)
        upstream = torch.randn(kernel.shape, generator=rng(1), dtype=torch.float64)
        results.append([kernel, *(x for x in made.gradients(upstream, kernel, kept, *sources) if x is not None)])
    for theirs, ours in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert_agree(ours, theirs, 1e-12)


@pytest.mark.parametrize("pooled", [False, True])
def test_weights_may_lie_in_memory_as_they_like(pooled):
    g = rng(0)
    shapes = (6, 5, 3, 2), (3, 5, 3, 2), (6, 3)
    ee, ie, ei = dense = [torch.rand(shape, generator=g, dtype=torch.float64) for shape in shapes]
    scattered = torch.stack([ee, ee], -1)[..., 0], ie.mT.contiguous().mT, ei.T.contiguous().T
    total, row_norm = (torch.tensor(x, dtype=torch.float64) for x in (4.0, 1.5))
    others = torch.rand(3, generator=g, dtype=torch.float64), total, row_norm
    made = ops.ConservedKernel(pooled, tonic=True, tapwise=True)
    results = []
    for weights in (dense, scattered):
        kernel, kept = made.make(*weights, *others)
        upstream = torch.randn(kernel.shape, generator=rng(1), dtype=torch.float64)
        grads = made.gradients(upstream, kernel, kept, *weights, *others)
        results.append([kernel, *(x for x in grads if x is not None)])
    for one, other in zip(*results, strict=True):
        assert_agree(one, other, 1e-13)
