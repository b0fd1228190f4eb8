"""One layer against the numbers that the authors' program computed."""

import pytest
import torch
from golden import FILES, assert_close, load
from torch import Tensor

import eisnn.functional as EF
from eisnn import ops

HIDDEN = ["conv_nozero", "conv_deadpatch", "conv_trained_nozero", "linear_hidden_zeros"]
PARAMETERS = ["weight_ee", "weight_ie", "weight_ei", "gain_i", "gain_e", "bias"]


def tensors(name: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], EF.Connection]:
    file = load(name)
    inputs = {k: file[k].to(dtype) for k in ["x", *PARAMETERS] if k in file}
    connection = ops.Conv(padding=(1, 1)) if name.startswith("conv") else ops.Dense()
    inputs |= {k: inputs[k].flatten() for k in ("gain_i", "gain_e", "bias")}
    inputs["x"] = inputs["x"][None]  # time is merged into the batch: a sample is a row
    return {k: v.clone().requires_grad_() for k, v in inputs.items()}, connection


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("form", [EF.ei_circuit, ops.ei_circuit])
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_layer_values_and_gradients(name, form, dtype):
    file, (inputs, connection) = load(name), tensors(name, dtype)
    prefix, tol = ("f64.", 1e-13) if dtype == torch.float64 else ("", 2e-6)
    out = form(**inputs, connection=connection)
    (out[0] * file[prefix + "R"]).sum().backward()
    assert_close(out[0], file[prefix + "out"], tol)
    for key, value in inputs.items():
        assert value.grad is not None
        assert_close(value.grad.view(file[prefix + "grad." + key].shape), file[prefix + "grad." + key], tol)


@pytest.mark.parametrize("name", HIDDEN)
def test_inner_currents(name):
    file, (inputs, connection) = load(name), tensors(name, torch.float64)
    i_ee, i_sub, i_div = EF.ei_currents(*[inputs[k] for k in ["x", *PARAMETERS[:4]]], connection)
    assert_close(i_ee[0], file["f64.I_ee"], 1e-13)
    assert_close((i_ee - i_sub)[0], file["f64.I_balanced"], 1e-13)
    assert_close(i_div[0], file["f64.I_shunting"], 1e-13)
    assert_close(EF.stabilize(i_div)[0], file["f64.I_shunting_adj"], 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("form", [EF.ei_readout, ops.ei_readout])
def test_readout(form, dtype):
    file, (inputs, connection) = load("linear_output"), tensors("linear_output", dtype)
    prefix, tol = ("f64.", 1e-13) if dtype == torch.float64 else ("", 2e-6)
    inputs = {k: inputs[k] for k in ["x", *PARAMETERS[:3]]}
    out = form(**inputs, connection=connection)
    (out[0] * file[prefix + "R"]).sum().backward()
    assert_close(out[0], file[prefix + "out"], tol)
    for key, value in inputs.items():
        assert value.grad is not None
        assert_close(value.grad.view(file[prefix + "grad." + key].shape), file[prefix + "grad." + key], tol)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", ["sigmoid", "atan", "leaky_relu"])
@pytest.mark.parametrize("scan", [ops.lif, EF.lif])
def test_lif(scan, surrogate, detach):
    file = load("lif")
    current = file["I"].clone().requires_grad_()
    spikes, v = scan(current, EF.LIFConstants(surrogate=surrogate, detach_reset=detach))
    (spikes * file["G"]).sum().backward()
    assert torch.equal(spikes, file["spikes"])
    assert_close(v, file["v_after_reset"][-1], 2e-6)
    assert current.grad is not None
    assert_close(current.grad, file[f"grad.{surrogate}.detach{int(detach)}"], 2e-6)


@pytest.mark.parametrize("scan", [ops.lif, EF.lif])
def test_lif_other_tau_and_float64(scan):
    file = load("lif")
    for dtype, tau, prefix, tol in [(torch.float32, 3.0, "tau3.", 2e-6), (torch.float64, 2.0, "f64.", 1e-13)]:
        current = file["I"].to(dtype).clone().requires_grad_()
        spikes, v = scan(current, EF.LIFConstants(tau=tau))
        (spikes * file["G"]).sum().backward()
        assert torch.equal(spikes, file[prefix + "spikes"])
        assert_close(v, file[prefix + "v_after_reset"][-1], tol)
        assert current.grad is not None
        assert_close(current.grad, file[prefix + "grad"], tol)


def test_the_files_are_all_used():
    used = {*HIDDEN, "linear_output", "lif", "vgg8_tiny"}
    assert {f.stem for f in FILES.glob("*.safetensors")} == used
