"""Dale's law: constrained parameters stay >= 0 whatever the optimizer does; checkpoints cannot break it."""

import copy

import pytest
import torch
from circuits import PARAMETERS, circuit, rng, spikes
from torch import Tensor, nn

import eisnn
from eisnn.nn import constrained_parameters

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=50.0, momentum=0.9, weight_decay=5e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=1.0),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1.0, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1.0),
}


class Net(nn.Module):
    """A convolution, a dense circuit and a readout: every kind of constrained parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = eisnn.EIConv2d(2, 8, 3, padding=1)
        self.hidden = eisnn.EILinear(8 * 16, 12)
        self.readout = eisnn.EIReadout(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.hidden(self.conv(x).flatten(2))).mean(0)


def batch() -> tuple[Tensor, Tensor]:
    return spikes((3, 6, 2, 4, 4), 0.4, dtype=torch.float32), torch.tensor([0, 1, 2, 0, 1, 2])


def net() -> Net:
    model = Net()
    eisnn.ei_init_(model, batch()[0], generator=rng(0))
    return model


def loss_of(model: nn.Module) -> Tensor:
    x, y = batch()
    return nn.functional.cross_entropy(model(x), y)


def push_down(model: nn.Module) -> Tensor:
    """A loss whose minimum lies far below 0 for all parameters, so that silent layers move too."""
    return loss_of(model) + sum(p.sum() for p in model.parameters())


def smallest(model: nn.Module) -> float:
    return min(float(p.detach().min()) for _, p in constrained_parameters(model))


@pytest.mark.parametrize("loss", [loss_of, push_down])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stays_true_under_every_optimizer(name, loss):
    model = net()
    without = copy.deepcopy(model)
    optimizer, free = OPTIMIZERS[name](model.parameters()), OPTIMIZERS[name](without.parameters())
    eisnn.enforce_dale(optimizer, model)
    moved = False
    for step in range(20):
        for m, o in [(model, optimizer), *([(without, free)] if step == 0 else [])]:
            o.zero_grad()
            loss(m).backward()
            o.step()
        assert eisnn.dale_violations(model) == {}
        assert smallest(model) >= 0
        if step == 0:  # the first step is the optimizer's, clamped; without the hook the law is broken
            assert smallest(without) < 0
            for (key, p), q in zip(model.named_parameters(), without.parameters(), strict=True):
                assert torch.equal(p, q if key.endswith("bias") else q.clamp_min(0))
        moved |= any(float(p.detach().min()) < 0 for key, p in model.named_parameters() if key.endswith("bias"))
    assert moved  # the bias is free


def test_which_parameters_are_constrained():
    names = {name for name, _ in constrained_parameters(net())}
    assert names == {
        *(f"{layer}.{p}" for layer in ("conv", "hidden") for p in PARAMETERS if p != "bias"),
        *(f"readout.{p}" for p in PARAMETERS[:3]),
    }


def test_fabric_wrapped():
    fabric_module = pytest.importorskip("lightning.fabric")
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1)
    raw = net()
    model, optimizer = fabric.setup(raw, OPTIMIZERS["sgd"](raw.parameters()))
    eisnn.enforce_dale(optimizer, model)
    for _ in range(20):
        optimizer.zero_grad()
        fabric.backward(push_down(model))
        optimizer.step()
        assert eisnn.dale_violations(raw) == {}
        assert eisnn.dale_violations(model) == {}
    assert smallest(raw) == 0


def test_grad_scaler():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    eisnn.enforce_dale(optimizer, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(20):
        optimizer.zero_grad()
        scaler.scale(push_down(model)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert eisnn.dale_violations(model) == {}
    assert smallest(model) == 0


def test_any_wrapper_that_names_its_optimizer():
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None:
            self.optimizer.step()

    model = net()
    wrapper = Wrapper(OPTIMIZERS["sgd"](model.parameters()))
    eisnn.enforce_dale(wrapper, model)
    push_down(model).backward()
    wrapper.step()
    assert smallest(model) == 0


def test_only_the_given_model_is_clamped_and_only_by_the_given_optimizer():
    one, two = net(), net()
    optimizer = OPTIMIZERS["sgd"]([*one.parameters(), *two.parameters()])
    eisnn.enforce_dale(optimizer, one)
    (push_down(one) + push_down(two)).backward()
    optimizer.step()
    assert smallest(one) == 0
    assert smallest(two) < 0


def test_the_handle_ends_the_enforcement():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    handle = eisnn.enforce_dale(optimizer, model)
    push_down(model).backward()
    optimizer.step()
    assert smallest(model) == 0
    handle.remove()
    optimizer.step()
    assert smallest(model) < 0
    assert eisnn.dale_violations(model) != {}


def test_an_optimizer_of_another_model_is_an_error():
    model = net()
    with pytest.raises(ValueError, match=r"does not hold 13 of .* constrained parameters, first conv\.weight_ee"):
        eisnn.enforce_dale(OPTIMIZERS["sgd"](net().parameters()), model)
    partial = [p for name, p in model.named_parameters() if name != "hidden.gain_i"]
    with pytest.raises(ValueError, match=r"does not hold 1 of .* first hidden.gain_i"):
        eisnn.enforce_dale(OPTIMIZERS["sgd"](partial), model)
    model.hidden.gain_i.requires_grad_(False)  # frozen: it need not be held
    eisnn.enforce_dale(OPTIMIZERS["sgd"](partial), model)


def test_swapped_arguments_are_named():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(TypeError, match=r"takes \(optimizer, model\), in this order; got \(Net, SGD\)"):
        eisnn.enforce_dale(model, optimizer)
    with pytest.raises(TypeError, match=r"got \(SGD, generator\)"):
        eisnn.enforce_dale(optimizer, model.parameters())


def test_a_model_that_violates_the_law_now_is_an_error():
    model = net()
    with torch.no_grad():
        model.hidden.weight_ee[1, 2] = -1.0
    with pytest.raises(ValueError, match=r"1 negative or NaN entries in hidden.weight_ee"):
        eisnn.enforce_dale(OPTIMIZERS["sgd"](model.parameters()), model)


def test_nothing_happens_on_a_model_without_circuits():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)  # not even its own optimizer
    eisnn.enforce_dale(optimizer, model)
    optimizer.step()
    assert smallest_weight(model) < 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert eisnn.dale_violations(model) == {}
    assert list(constrained_parameters(model)) == []


def smallest_weight(model: nn.Module) -> float:
    return min(float(p.detach().min()) for p in model.parameters())


def test_violations_count_negative_and_nan_entries():
    model = net()
    assert eisnn.dale_violations(model) == {}
    with torch.no_grad():
        model.conv.weight_ei[0, :2] = torch.tensor([-1e-30, torch.nan])
        model.readout.weight_ie[:, 0] = -torch.inf
        model.hidden.bias[:] = -5
        model.hidden.gain_e[0] = -0.0
    assert eisnn.dale_violations(model) == {"conv.weight_ei": 2, "readout.weight_ie": 1}
    layer = eisnn.EILinear(3, 4)
    nn.init.constant_(layer.gain_i, -1)
    assert eisnn.dale_violations(layer) == {"gain_i": 1}


# ---------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("bad", [-1e-6, float("nan")])
@pytest.mark.parametrize("name", ["weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e"])
def test_loading_what_violates_the_law_is_an_error_and_leaves_the_layer(name, bad):
    model, other = net(), net()
    nn.init.constant_(other.hidden.bias, 9.0)
    state = other.state_dict()
    state[f"hidden.{name}"] = state[f"hidden.{name}"].clone()
    state[f"hidden.{name}"].view(-1)[1] = bad
    before = copy.deepcopy(model.hidden.state_dict())
    with pytest.raises(RuntimeError, match=rf"hidden.{name} violates Dale's law: 1 negative or NaN entries"):
        model.load_state_dict(state)
    assert all(torch.equal(before[k], v) for k, v in model.hidden.state_dict().items())
    assert eisnn.dale_violations(model) == {}


def test_a_free_bias_may_be_negative():
    model = net()
    nn.init.constant_(model.conv.bias, -9.0)
    loaded = net()
    loaded.load_state_dict(model.state_dict())
    assert (loaded.conv.bias == -9).all()
    assert eisnn.dale_violations(loaded) == {}


def test_a_round_trip_keeps_weights_and_that_they_are_initialised(tmp_path):
    model = net()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    fresh = Net()
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert all(layer.initialized for layer in fresh.children())
    assert torch.equal(fresh(batch()[0]), model(batch()[0]))
    with pytest.warns(UserWarning, match="or by weights that were loaded"):
        assert eisnn.ei_init_(fresh, batch()[0]) == {}  # loading never leads to a redraw
    assert torch.equal(fresh(batch()[0]), model(batch()[0]))


def test_what_was_never_initialised_stays_so():
    model, fresh = net(), Net()
    assert "conv.initialized" in model.state_dict()
    model.load_state_dict(fresh.state_dict())
    assert not model.conv.initialized
    with pytest.raises(RuntimeError, match="never initialised"):
        model(batch()[0])


def test_initialized_is_a_plain_bool_at_run_time_and_a_tensor_in_the_state():
    layer = net().conv
    assert layer.initialized is True
    assert layer.state_dict()["initialized"].dtype == torch.bool
    assert list(layer.buffers()) == []


def test_missing_and_unexpected_keys_are_reported():
    model = net()
    state = model.state_dict()
    del state["readout.initialized"]
    with pytest.raises(RuntimeError, match=r"Missing key.*readout\.initialized"):
        net().load_state_dict(state)
    fresh = Net()
    result = fresh.load_state_dict(state, strict=False)
    assert not fresh.readout.initialized
    assert fresh.conv.initialized
    assert result.unexpected_keys == []
    state = model.state_dict() | {"readout.gain_i": torch.ones(1)}
    with pytest.raises(RuntimeError, match=r"Unexpected key.*readout\.gain_i"):
        net().load_state_dict(state)


def test_a_circuit_by_itself_takes_plain_tensors():
    layer = eisnn.EILinear(5, 8, dtype=torch.float64)
    parameters = circuit(8, 2, (5,))
    layer.load_state_dict(parameters | {"initialized": torch.tensor(True)})
    assert all(torch.equal(getattr(layer, k), v) for k, v in parameters.items())


@pytest.mark.parametrize("lost", ["weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e", "bias"])
def test_a_part_of_the_weights_does_not_initialise(lost):
    """A circuit that was never filled must not pass for one that was: it would be silent."""
    state = net().state_dict()
    short = {name: value for name, value in state.items() if name != f"hidden.{lost}"}
    fresh = Net()
    fresh.load_state_dict(short, strict=False)
    assert [m.initialized for m in fresh.children()] == [m is not fresh.hidden for m in fresh.children()]
    assert list(eisnn.ei_init_(fresh, batch()[0])) == ["hidden"]
    before = copy.deepcopy(fresh.state_dict())
    fresh.load_state_dict({name: v for name, v in before.items() if name != f"hidden.{lost}"}, strict=False)
    assert fresh.hidden.initialized  # it was before

    fresh = Net()
    with pytest.raises(RuntimeError, match=rf"size mismatch for hidden\.{lost}"):
        fresh.load_state_dict(state | {f"hidden.{lost}": torch.ones(1, 1, 1)})
    assert [m.initialized for m in fresh.children()] == [m is not fresh.hidden for m in fresh.children()]


def test_what_must_not_become_zero_stops_at_its_bound():
    layer = eisnn.EILinear(8, 4, options=eisnn.nn.PLUS)
    eisnn.ei_init_(layer, torch.rand(2, 3, 8))
    with torch.no_grad():
        layer.weights.sigma.fill_(-1)
        layer.weight_ee.fill_(-1)
    eisnn.nn.project_(layer)
    assert layer.weights.sigma.tolist() == pytest.approx([0.03] * 4)
    assert layer.weight_ee.count_nonzero() == 0
