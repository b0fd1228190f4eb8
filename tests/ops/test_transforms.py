"""Derivatives of other kinds than `backward`: each gives the right value or raises, none is silently 0."""

import pytest
import torch
from circuits import rng
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

import eisnn
import eisnn.functional as EF
from eisnn import ops
from eisnn.nn import PLUS
from eisnn.ops import backends
from eisnn.ops.weights import matmul

CONSTANTS, ONES = EF.LIFConstants(), torch.ones(2, dtype=torch.float64)


def layer(options=eisnn.nn.PAPER, channels=2):
    made = eisnn.EIConv2d(channels, 8, 3, padding=1, options=options).double()
    eisnn.ei_init_(made, torch.rand(1, 2, channels, 5, 5, generator=rng(1), dtype=torch.float64), generator=rng(2))
    return made


PAPER, CONSERVED = layer(), layer(PLUS, 8)
FUNCTIONS = {
    "lif": (lambda x: ops.lif(x, CONSTANTS)[0], (3, 2, 4)),
    "lif, as written": (lambda x: EF.lif(x, CONSTANTS)[0], (3, 2, 4)),
    "heaviside": (EF.heaviside, (3, 2, 4)),
    "stabilize": (EF.stabilize, (3, 2, 4)),
    "scaled gradient": (lambda x: EF.scale_gradient(x, 0.5), (3, 2, 4)),
    "pool": (ops.average_pool, (1, 2, 3, 4, 4)),
    "circuit": (lambda x: PAPER(x, 3), (1, 2, 2, 5, 5)),
    "conserved": (lambda x: CONSERVED(x, 3), (1, 2, 8, 5, 5)),
    "population": (lambda x: ops.population(x, ONES.expand(2, 2), ONES, 0 * ONES, CONSTANTS)[0], (3, 2, 4)),
}


LINEAR = {"pool"}  # of torch's own operators
TWICE = {"lif, as written", "heaviside"}  # differentiable
CONSTANT = {"stabilize", "scaled gradient"}  # gradients
ONE_OP = {"lif", "population"}  # which torch can map over a batch
# Torch's words for what an autograd function does not do, and ours.
REFUSED = "functorch transforms|must implement the jvp function|has no forward-mode derivative"


@pytest.fixture(params=FUNCTIONS)
def case(request):
    """The name of a function, the function, where it is differentiated, and its gradient there."""
    function, shape = FUNCTIONS[request.param]
    x = 2 * torch.rand(shape, generator=rng(3), dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(leaf).sum(), leaf)
    assert expected.abs().sum() > 0
    return request.param, (lambda z: function(z).sum()), x, expected


def forward_mode(f, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


DERIVATIVES = {
    "grad": grad,
    "jacrev": jacrev,
    "jacfwd": jacfwd,
    "jvp": lambda f: lambda x: jvp(f, (x,), (torch.ones_like(x),))[1],
    "dual numbers": lambda f: lambda x: forward_mode(f, x),
}


@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
def test_right_or_refused(case, derivative):
    name, f, x, expected = case
    if name in LINEAR:
        assert torch.allclose(derivative(f)(x).sum(), expected.sum())
    else:
        with pytest.raises(RuntimeError, match=REFUSED):
            derivative(f)(x)


@pytest.mark.parametrize("name", ["lif", "population"])
def test_compiled_forward_mode_is_refused(name):
    function, shape = FUNCTIONS[name]
    x = torch.rand(shape, generator=rng(3), dtype=torch.float64)
    for forwards in (DERIVATIVES["jvp"](function), DERIVATIVES["dual numbers"](function)):
        with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
            torch.compile(forwards, backend="eager")(x)


def by_onednn(x):
    return matmul.matmul(x, torch.ones(4, 3))


def by_triton(x):
    return ops.average_pool(x.movedim(-1, 2))


@pytest.mark.parametrize(("function", "shape"), [(by_onednn, (5, 4)), (by_triton, (1, 2, 4, 4, 3))])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("derivative", ["jvp", "dual numbers", "jacfwd"])
def test_torch_serves_forward_mode_of_linear_operations(function, shape, compiled, derivative, monkeypatch):
    """What is linear has the derivative along 1 that it has at 1, by whichever back end it is computed."""
    expected = function(torch.ones(shape)).sum()
    monkeypatch.setattr(matmul, "_ONEDNN", True)
    monkeypatch.setattr(backends, "in_triton", lambda _: True)
    forwards = DERIVATIVES[derivative](function)
    found = (torch.compile(forwards, backend="eager") if compiled else forwards)(torch.rand(shape, generator=rng(3)))
    assert found.sum() == expected


def test_maps_over_a_batch_are_right_or_refused(case):
    name, f, x, _ = case
    several = torch.stack([x, x / 2, x * 1.5])
    if name in LINEAR | ONE_OP:
        assert torch.allclose(vmap(f)(several), torch.stack([f(one) for one in several]))
    else:
        with pytest.raises(RuntimeError, match=r"functorch transforms|Batching rule not implemented"):
            vmap(f)(several)


def test_second_derivatives_are_right_or_refused(case):
    name, f, x, _ = case

    def slope(z):
        return torch.autograd.grad(f(z), z, create_graph=True)[0].square().sum()

    leaf = x.clone().requires_grad_()
    if name in CONSTANT:
        assert not slope(leaf).requires_grad
        return
    if name not in LINEAR | TWICE:
        with pytest.raises(RuntimeError, match=r"have no second derivatives|no autograd formula was registered"):
            torch.autograd.grad(slope(leaf) + f(leaf), leaf)
        return
    slope(leaf).backward()
    step, at = 1e-6, torch.zeros_like(x).flatten()
    at[3] = step
    up, down = (slope((x + sign * at.view_as(x)).requires_grad_()) for sign in (1, -1))
    assert torch.allclose(leaf.grad.flatten()[3], ((up - down) / (2 * step)).detach(), rtol=1e-3, atol=1e-5)


def test_forward_mode_says_what_to_take_instead():
    with pytest.raises(
        NotImplementedError, match=r"lif has no forward-mode derivative \(jvp, jacfwd\): take reverse mode"
    ):
        jvp(lambda x: ops.lif(x, CONSTANTS)[0], (torch.rand(3, 2, 4),), (torch.ones(3, 2, 4),))


def test_other_parameters_by_functional_call():
    x = torch.rand(1, 2, 2, 5, 5, generator=rng(4), dtype=torch.float64)
    others = {name: parameter.detach() * 1.5 for name, parameter in PAPER.named_parameters()}
    twin = layer()
    twin.load_state_dict(others | {"initialized": torch.tensor(True)})
    assert torch.equal(functional_call(PAPER, others, (x, 3)), twin(x, 3))
