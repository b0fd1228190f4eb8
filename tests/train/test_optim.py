"""Optimizers and what is done to gradients: each by its defining property, and all within Dale's law."""

import copy

import pytest
import torch
from circuits import rng
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import eisnn
from eisnn.nn import PAPER
from eisnn.nn.dale import constrained_parameters
from eisnn.nn.options import PLUS
from eisnn.train import update_rules
from eisnn.train.gradients import SMALLEST_NORM, clip_gradients_
from eisnn.train.optim import OptimizationConfig, make_optimizer
from eisnn.train.update_rules import RuledSGD, orthogonalize

OPTIMIZERS = ["sgd", "adam", "adamw", "exponentiated", "orthogonal"]
# Each in double precision on a network of three layers.
RATES = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01, "exponentiated": 0.5, "orthogonal": 0.05}


def network(options=PAPER, circuit="ei"):
    torch.manual_seed(0)
    chosen = {"circuit_options": options} if circuit == "ei" else {}
    model = eisnn.create_model("convnet3", width=0.25, circuit=circuit, **chosen).double()
    eisnn.ei_init_(model, images(), generator=rng(1))
    return model


def images(seed=0):
    return torch.rand(8, 3, 8, 8, generator=rng(seed), dtype=torch.float64)


def backward(model, seed=0):
    loss = nn.functional.cross_entropy(model(images(seed)), torch.arange(8))
    loss.backward()
    return float(loss.detach())


def train(model, config, steps=4):
    """Losses of a few steps on the same images; Dale's law is looked at after each."""
    optimizer = make_optimizer(model, config)
    eisnn.enforce_dale(optimizer, model)
    losses = []
    for _ in range(steps):
        losses.append(backward(model))
        optimizer.step()
        optimizer.zero_grad()
        assert eisnn.dale_violations(model) == {}
    return losses


@pytest.mark.parametrize("options", [PAPER, PLUS], ids=["paper", "plus"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns_within_dales_law(optimizer, options):
    model = network(options)
    before = copy.deepcopy(model.state_dict())
    losses = train(
        model, OptimizationConfig(optimizer=optimizer, lr=RATES[optimizer] * (0.1 if options is PAPER else 1)), 8
    )
    assert min(losses[1:]) < losses[0]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_of_torch_are_torchs_own(name, kind):
    optimizer = make_optimizer(network(), OptimizationConfig(optimizer=name, momentum=0.8, lr=0.5, weight_decay=0.25))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert group["momentum"] == 0.8 if name == "sgd" else group["betas"] == (0.8, 0.999)


@pytest.mark.parametrize("rule", ["additive", "exponentiated"])
def test_without_signs_the_rules_are_sgd_in_their_own_coordinates(rule):
    """SGD in w; or in log w, whose gradient divided by w is dL/dw."""
    w = (0.5 + torch.rand(4, 3, generator=rng(0), dtype=torch.float64)).requires_grad_()
    start = w.detach().clone()
    ours = RuledSGD([{"params": [w], "rule": rule}], lr=0.1, momentum=0.9)
    point = start if rule == "additive" else start.log()
    point = point.clone().requires_grad_()
    theirs = torch.optim.SGD([point], lr=0.1, momentum=0.9)
    for step in range(3):
        grad = torch.randn(w.shape, generator=rng(step), dtype=torch.float64)
        w.grad, point.grad = grad, grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(w, point if rule == "additive" else point.exp())
    assert not torch.equal(w, start)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_exponentiated_steps_keep_signs_and_zeros(seed, size):
    w = torch.randn(6, 5, generator=rng(seed), dtype=torch.float64)
    w[0] = 0
    w.requires_grad_()
    signs = w.detach().sign()
    optimizer = RuledSGD([{"params": [w], "rule": "exponentiated"}], lr=0.1, momentum=0.9)
    for step in range(3):
        w.grad = size * torch.randn(w.shape, generator=rng(seed + step + 1), dtype=torch.float64).clamp(-0.5, 0.5)
        optimizer.step()
    assert torch.equal(w.sign(), signs)


def test_exponentiated_gradient_clamps_nothing():
    """By construction: Dale's law holds without the projection, and no weight reaches 0."""
    model = network()
    optimizer = make_optimizer(model, OptimizationConfig(optimizer="exponentiated", lr=0.1, weight_decay=0))
    for _ in range(4):
        backward(model)
        optimizer.step()
        optimizer.zero_grad()
    assert all((p > 0).all() for _, p in constrained_parameters(model))
    assert any((layer.bias != 0).any() for layer in model.layers)  # has no sign to keep, and is free


def test_exponentiated_gradient_needs_signs():
    with pytest.raises(ValueError, match="no parameter of the model keeps a sign; use circuit 'ei'"):
        make_optimizer(network(circuit="bn"), OptimizationConfig(optimizer="exponentiated"))


@given(st.integers(0, 10**6), st.sampled_from([(4, 9), (9, 4), (1, 7), (16, 16)]), st.floats(1e-8, 1e8))
def test_orthogonalised_is_near_the_polar_factor(seed, shape, size):
    matrix = torch.randn(shape, generator=rng(seed), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    singular = u.mT @ orthogonalize(size * matrix) @ vh.mT  # diagonal: the same singular vectors
    off_diagonal = singular - singular.diagonal().diag()
    assert off_diagonal.abs().max() < 1e-9
    seen = torch.linalg.svdvals(matrix) > 0.02 * torch.linalg.matrix_norm(matrix)
    assert ((singular.diagonal()[seen] > 0.65) & (singular.diagonal()[seen] < 1.2)).all()


@given(
    st.integers(0, 10**6),
    st.sampled_from([(4, 9), (2, 3, 30), (1, 7), (16, 144)]),
    st.integers(0, 12),
    st.sampled_from([(torch.float64, 1e-9), (torch.float32, 2e-3)]),
)
def test_the_iteration_on_the_gram_is_the_same(seed, shape, decades, kind):
    """Also for singular values that span many orders of magnitude, and in single precision."""
    dtype, tolerance = kind
    u, s, vh = torch.linalg.svd(torch.randn(shape, generator=rng(seed), dtype=torch.float64), full_matrices=False)
    x = u * torch.logspace(0, -decades, s.shape[-1], dtype=torch.float64) @ vh
    x = x / torch.linalg.matrix_norm(x, keepdim=True)
    torch.testing.assert_close(
        update_rules._iterate_on_gram(x.to(dtype)).double(), update_rules._iterate(x), rtol=0, atol=tolerance
    )


def test_what_takes_long_on_a_cpu_is_said():
    large = nn.Linear(1, 1)
    large.weight = nn.Parameter(torch.empty(4096, 25088))  # of memory that nothing touches
    with pytest.warns(UserWarning, match=r"take 4e12 .* for large.weight \[4096, 25088\]: about 31 s"):
        make_optimizer(nn.ModuleDict({"large": large}), OptimizationConfig(optimizer="orthogonal"))


def test_nothing_orthogonalised_is_nothing():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


@pytest.mark.parametrize("shape", [(3, 4), (5, 2), (4, 4)])
def test_several_matrices_are_orthogonalised_one_by_one(shape, monkeypatch):
    several = torch.randn(3, *shape, generator=rng(0), dtype=torch.float64)
    several[1] *= 1e-6
    torch.testing.assert_close(orthogonalize(several), torch.stack([orthogonalize(one) for one in several]))


def test_weights_of_several_shapes_may_be_stepped_together(monkeypatch):
    """As a GPU does it, with zeros around the smaller ones."""
    steps = []
    for together in (False, True):
        weights = [
            torch.randn(shape, generator=rng(k), dtype=torch.float64)
            for k, shape in enumerate([(3, 4), (7, 2, 3, 3), (3, 4), (9, 2), (4, 5)])
        ]
        weights[1] = weights[1].to(memory_format=torch.channels_last)
        for k, w in enumerate(weights):
            w.grad = torch.randn(w.shape, generator=rng(9 + k), dtype=torch.float64)
        if together:
            monkeypatch.setattr(update_rules, "_batches", lambda _: [[0, 1, 2, 3], [4]])
        RuledSGD([{"params": weights, "rule": "orthogonal"}], lr=0.1, momentum=0.9).step()
        steps.append(weights)
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other)


def test_decoupled_decay_leaves_the_momentum_alone():
    w, plain = (torch.full((2, 3), 2.0, dtype=torch.float64) for _ in range(2))
    for x, options in ((w, {"weight_decay": 0.5, "decoupled": True}), (plain, {})):
        x.grad = torch.arange(6.0, dtype=torch.float64).view(2, 3)
        optimizer = RuledSGD([{"params": [x], "rule": "orthogonal"}], lr=0.1, momentum=0.9, **options)
        optimizer.step()
        assert torch.equal(optimizer.state[x]["momentum_buffer"], x.grad)
        x.grad.zero_()
        optimizer.step()
        assert torch.equal(
            optimizer.state[x]["momentum_buffer"], 0.9 * torch.arange(6.0, dtype=torch.float64).view(2, 3)
        )
    step = (plain - 2) / 2  # twice the same: a momentum that shrinks has the same orthogonal factor
    torch.testing.assert_close(w, ((2 * 0.95 + step) * 0.95) + step)


def test_decoupled_decay_belongs_to_two_optimizers():
    with pytest.raises(ValueError, match=r"decoupled_decay belongs to .* of Adam it is adamw"):
        OptimizationConfig(optimizer="adam", decoupled_decay=True)


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="unknown update rule 'cubic'; known: additive, exponentiated, orthogonal"):
        RuledSGD([{"params": [torch.zeros(1)], "rule": "cubic"}], lr=0.1)


@pytest.mark.parametrize("decay", ["all", "feedforward"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_parameter_is_in_one_group_and_decays_as_asked(optimizer, decay):
    model = network(PLUS)
    made = make_optimizer(model, OptimizationConfig(optimizer=optimizer, decay=decay, weight_decay=0.25))
    names = {id(p): name.split(".")[-1] for name, p in model.named_parameters()}
    held = [p for group in made.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    free = {names[id(p)] for group in made.param_groups if not group["weight_decay"] for p in group["params"]}
    assert free == ({"weight_ei", "gain_i", "gain_e", "bias", "sigma"} if decay == "feedforward" else set())


# Gradients


def norm(values: Tensor) -> Tensor:
    rows = values.flatten(1) if values.ndim > 1 else values[None]
    return rows.norm(dim=1)


@pytest.mark.parametrize("limit", [1e-3, 0.1])
def test_clipping_bounds_each_neurons_gradient_and_keeps_its_direction(limit):
    model = network()
    backward(model)
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    clip_gradients_(model, limit)
    clipped = 0
    for name, p in model.named_parameters():
        if name.startswith("readout"):
            assert torch.equal(p.grad, before[name])
            continue
        allowed = limit * norm(p.detach()).clamp_min(SMALLEST_NORM)
        assert (norm(p.grad) <= allowed * (1 + 1e-12)).all(), name
        unchanged = norm(before[name]) <= allowed
        rows, old = (g if g.ndim > 1 else g[None] for g in (p.grad, before[name]))
        assert torch.equal(rows[unchanged], old[unchanged])
        along = (rows * old).flatten(1).sum(1)
        torch.testing.assert_close(along, norm(rows.flatten(1)) * norm(old.flatten(1)))
        clipped += int((~unchanged).sum())
    assert clipped > 0


def test_parameters_without_gradient_are_passed_over():
    model = network()
    clip_gradients_(model, 0.1)
    assert all(p.grad is None for p in model.parameters())
