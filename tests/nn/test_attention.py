"""Attention between spikes: its currents, their start, state, gradients, sign and cost."""

import pytest
import torch
from circuits import assert_agree, rng
from torch import Tensor, nn

import eisnn
from eisnn import functional as EF
from eisnn.nn import LIF, PLIF, SelfAttention, TokenAttention
from eisnn.nn.attention import Attention

T, B, C, HEADS, H, W = 4, 3, 12, 3, 3, 5
BOTH = pytest.mark.parametrize("made", [SelfAttention, TokenAttention])
KINDS = pytest.mark.parametrize("kind", ["fixed", "gain", "divisive"])
LEARNED = pytest.mark.parametrize("kind", ["gain", "divisive"])


def spikes(layer: Attention | type[Attention], steps: int = T, rate: float = 0.4, seed: int = 0) -> Tensor:
    """Queries, keys, values `[T, B, parts * C, H, W]`."""
    return torch.bernoulli(
        torch.full((steps, B, layer.parts * C, H, W), rate, dtype=torch.float64), generator=rng(seed)
    )


def build(made: type[Attention], kind: str, neuron: nn.Module | None = None) -> Attention:
    """With parameters that differ."""
    layer = made(C, HEADS, kind, LIF() if neuron is None else neuron).double()
    eisnn.ei_init_(layer, spikes(layer, seed=1))
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim:
                parameter.mul_(torch.rand(parameter.shape, generator=rng(2)) + 0.5)
    return layer


def by_loops(layer: Attention, x: Tensor) -> Tensor:
    """`I_E` of one step and image `[C, H, W]`, as the equations are read."""
    d, tokens = C // HEADS, [(a, b) for a in range(H) for b in range(W)]
    gain = torch.ones(layer.outputs) if layer.gain is None else layer.gain * layer.gain_unit
    out = torch.zeros(layer.outputs, H, W, dtype=torch.float64)
    for head in range(HEADS):
        q, k, v = (
            x[part * C + head * d : part * C + (head + 1) * d] if x.shape[0] > part * C else None for part in range(3)
        )
        sigma = None if layer.sigma is None else layer.sigma[head] * layer.sigma_unit
        for a, b in tokens:
            if k is None:
                found, pooled = {head: q[:, a, b].sum()}, q.sum() / len(tokens)
                share = 1.0
            else:
                row = [(q[:, a, b] * k[:, e, f]).sum() for e, f in tokens]
                found = {
                    head * d + c: sum(m * v[c, e, f] for m, (e, f) in zip(row, tokens, strict=True)) for c in range(d)
                }
                pooled, share = sum(row), 1 / 8
            for n, value in found.items():
                divided = value if sigma is None else value / (sigma + pooled)
                out[n, a, b] = divided * (share if layer.gain is None else gain[n])
    return out.detach()


@BOTH
@KINDS
def test_currents_are_those_of_the_equations(made, kind):
    layer, x = build(made, kind), spikes(made)
    assert_agree(layer.integrated(x)[2, 1], by_loops(layer, x[2, 1]), 1e-12)
    measured = layer.measure(x, layer(x))
    assert set(measured) == set(layer.quantities())
    assert_agree(measured["I_E"], layer.integrated(x), 1e-14)
    if kind == "divisive":
        gain = EF.per_neuron(layer.gain * layer.gain_unit, x)
        assert_agree(measured["I_EE"] * gain / measured["I_div"], measured["I_E"], 1e-12)


@pytest.mark.parametrize("d", [2, 8])
def test_both_orders_of_the_product_are_exact(d):
    q, k, v = (torch.bernoulli(torch.full((2, 5, d), 0.5), generator=rng(seed)) for seed in range(3))
    assert EF.keys_first(q) == (d == 2)
    assert torch.equal(EF.attend(q, k, v), EF.attention_map(q, k) @ v)
    assert torch.equal(EF.attention_sum(q, k), EF.attention_map(q, k).sum(-1, keepdim=True))


@pytest.mark.parametrize("theta", [1.0, 2.0])
def test_eight_coincidences_reach_the_published_threshold(theta):
    for met in (7, 8):
        x = torch.zeros(1, 1, 3 * 8, 1, 1)
        x[:, :, 7:8] = 1  # a query more than keys
        x[:, :, : min(met, 8)] = x[:, :, 8 : 8 + met] = x[:, :, 16:17] = 1
        out = SelfAttention(8, neuron=LIF(theta=theta))(x)
        assert out.flatten().tolist() == [float(met == 8)] + [0.0] * 7
    assert TokenAttention(8, neuron=LIF(theta=theta))(x[:, :, 16:]).item() == 1  # one query spike


def test_divisive_attention_does_not_count_tokens():
    """Every token twice: the same answer, which the fixed scale doubles."""
    x = spikes(SelfAttention)
    x[:, :, :C] = 1  # every query meets a key, as nothing divides otherwise
    twice = torch.cat([x, x], -1)
    layer = build(SelfAttention, "divisive")
    layer.sigma_unit.zero_()
    assert_agree(layer.integrated(twice)[..., :W], layer.integrated(x), 1e-12)
    fixed = SelfAttention(C, HEADS)
    assert_agree(fixed.integrated(twice)[..., :W], 2 * fixed.integrated(x), 1e-12)


@BOTH
@LEARNED
def test_gradients_are_those_of_finite_differences(made, kind):
    layer, x = build(made, kind, nn.Identity()), spikes(made)[:1, :1] + 0.1
    names = [name for name, p in layer.named_parameters()]

    def current(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(current, (x.requires_grad_(), *layer.parameters()))


@BOTH
@KINDS
def test_streams_and_static_inputs(made, kind):
    layer, x = build(made, kind), spikes(made, 2 * T)
    whole, end = layer(x, return_state=True)
    first, state = layer(x[:T], return_state=True)
    second, last = layer(x[T:], state=state, return_state=True)
    assert torch.equal(torch.cat([first, second]), whole)
    assert torch.equal(last, end)
    assert whole.any()
    assert not whole.all()
    assert torch.equal(layer(x[:1], T), layer(x[:1].expand(T, -1, -1, -1, -1)))


@BOTH
@LEARNED
@pytest.mark.parametrize("neuron", [LIF(), PLIF()])
def test_e_i_init_starts_attention_at_a_rate(made, kind, neuron):
    layer = made(C, HEADS, kind, neuron).double()
    x = spikes(made, rate=0.2)
    with pytest.raises(RuntimeError, match=r"never initialised: call eisnn\.ei_init_"):
        layer(x)
    eisnn.ei_init_(layer, x)
    rate = float(layer(x).detach().mean())
    # What counts query spikes alone takes few values, which start to fire together.
    near = 0.1 if (made, kind) == (TokenAttention, "gain") else 0.02
    assert rate == pytest.approx(0.5 if made is TokenAttention else float(x.mean()), abs=near)
    if kind == "divisive":
        assert float(layer.sigma_unit) == pytest.approx(0.3 * float(layer.drive(x).pooled.mean()))
    assert all((p == 1).all() for name, p in layer.named_parameters() if not name.startswith("neuron"))
    again = made(C, HEADS, kind, neuron).double()
    part = {name: value for name, value in layer.state_dict().items() if name != "gain_unit"}
    again.load_state_dict(part, strict=False)
    assert not again.initialized
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))


def test_what_e_i_init_cannot_start():
    layer = SelfAttention(C, HEADS, "divisive").double()
    x = spikes(layer)
    x[:, :, C : 2 * C] = 0
    with pytest.raises(ValueError, match="in SelfAttention no query meets a key"):
        eisnn.ei_init_(layer, x)
    assert not layer.initialized
    with pytest.raises(ValueError, match="has gain, sigma, measured from data"):
        eisnn.ei_init_(layer, firing_probability=0.2)
    fixed = SelfAttention(C, HEADS)
    assert eisnn.ei_init_(fixed, spikes(layer)) == {}
    assert fixed.state_dict().keys() == {"initialized"}


@BOTH
def test_gain_and_semisaturation_keep_their_sign(made):
    for sign in (1, -1):
        layer = build(made, "divisive")
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e6)
        eisnn.enforce_dale(optimizer, layer)
        (sign * layer.integrated(spikes(made)).sum()).backward()
        optimizer.step()
        assert eisnn.dale_violations(layer) == {}
        assert ((layer.gain if sign > 0 else layer.sigma) == (0 if sign > 0 else 0.03)).all()
    wrong = layer.state_dict() | {"gain": -torch.ones_like(layer.gain)}
    with pytest.raises(RuntimeError, match="gain violates Dale's law"):
        layer.load_state_dict(wrong)


@pytest.mark.parametrize("heads", [HEADS, 1])
def test_products_are_counted_as_they_are_made(heads):
    """15 tokens and 4 channels a head take keys first, 12 channels also; more channels than tokens the map."""
    layer = SelfAttention(C, heads, "divisive")
    for x in (spikes(layer), spikes(layer)[..., :1, :2]):
        q, k, v = layer.split(x)
        counted = {p.name: (p.dense, p.effective) for p in layer.products(x)}
        n, d = q.shape[-2:]
        everything = x.shape[0] * B * heads
        if n >= d:
            expected = {"K^T V": torch.einsum("tbhnc,tbhnd->", k, v), "Q (K^T V)": q.sum() * d}
            dense = everything * n * d * d
        else:
            a = torch.einsum("tbhnc,tbhmc->tbhnm", q, k)
            expected = {"Q K^T": a.sum(), "A V": torch.einsum("tbhnm,tbhmc->", (a > 0).double(), v)}
            dense = everything * n * n * d
        for name, effective in expected.items():
            assert counted[name] == (dense, float(effective))
        assert counted["A 1"] == (2 * everything * n * d, float(q.sum() + k.sum()))
    assert TokenAttention(C).products(spikes(TokenAttention))[0].effective == float(spikes(TokenAttention).sum())


def test_arguments_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="SelfAttention: channels must be a multiple of heads, got 12 and 5"):
        SelfAttention(12, 5)
    with pytest.raises(ValueError, match="TokenAttention: kind must be one of fixed, gain, divisive, got 'softmax'"):
        TokenAttention(12, 3, "softmax")
    with pytest.raises(ValueError, match="SelfAttention has 36 inputs, got 12"):
        SelfAttention(12, 3)(spikes(TokenAttention))
