"""The cortical circuit by its back ends against the readable reference, in value and every gradient."""

from dataclasses import replace

import pytest
import torch
from circuits import assert_agree, rng, spikes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import eisnn.functional as EF
from eisnn import ops
from eisnn.functional import cortex as FC
from eisnn.ops.cortex import cpu
from eisnn.ops.cortex.torch import CIRCUITS

N_E, N_PV, N_SST, N_VIP, BELOW = 19, 5, 3, 2, 7
RECURRENT = {"recurrent_ee": (N_E, N_E), "recurrent_pe": (N_PV, N_E)}
SHAPES = {
    "weight_ee": (N_E, BELOW), "weight_pe": (N_PV, BELOW), "weight_ep": (N_E, N_PV),
    "gain_p": (N_PV,), "gain_e": (N_E,), "bias": (N_E,),
}  # fmt: skip
WITH = {
    "E": RECURRENT,
    "sigma": {"sigma": (N_E,)},
    "PV-PV": {"weight_pp": (N_PV, N_PV)},
    "SST": RECURRENT | {"recurrent_se": (N_SST, N_E), "weight_es": (N_E, N_SST)},
    "SST-PV": {"weight_ps": (N_PV, N_SST)},
    "VIP": {"recurrent_ve": (N_VIP, N_E), "weight_sv": (N_SST, N_VIP), "weight_vs": (N_VIP, N_SST)},
}
PATHWAYS = [
    (), ("sigma",), ("PV-PV",), ("E",), ("E", "sigma", "PV-PV"), ("SST",), ("SST", "SST-PV"), ("SST", "VIP", "sigma"),
    tuple(WITH),
]  # fmt: skip
CONSTANTS = st.builds(
    EF.LIFConstants,
    tau=st.floats(1, 10),
    theta=st.floats(0.5, 2),
    reset=st.sampled_from(["soft", "hard"]),
    surrogate=st.sampled_from(sorted(EF.SURROGATES)),
    detach_reset=st.booleans(),
)
pytestmark = pytest.mark.skipif(not cpu.build.library(), reason="no C++ compiler here")


def inputs(pathways: tuple[str, ...], t: int, b: int, delay: int, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights, currents and a state in the midst of activity."""
    g = rng(seed)
    shapes = dict(SHAPES)
    for name in pathways:
        shapes |= WITH[name]

    def positive(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).exponential_(generator=g) / max(1, shape[-1])

    made = {name: positive(*shape) * len(shape) for name, shape in shapes.items()}
    made |= {
        name: 0.3 + torch.rand(made[name].shape, generator=g, dtype=torch.float64) for name in ("gain_p", "gain_e")
    }
    if "sigma" in made:
        made["sigma"] += 0.1
    made["bias"] = torch.randn(N_E, generator=g, dtype=torch.float64) / 2
    made["currents"] = positive(t, b, N_E + N_PV) * (N_E + N_PV) * spikes((t, b, N_E + N_PV), 0.8, seed)
    if "sigma" not in made:  # nothing inhibits the first cell, nor, at first, the last sample
        made["weight_ep"][0] = 0
        made["currents"][0, -1] = 0
    kinds = {"pv": N_PV, "sst": N_SST * ("SST" in pathways), "vip": N_VIP * ("VIP" in pathways)}
    made["v"] = torch.randn(b, N_E, generator=g, dtype=torch.float64)
    made["history"] = spikes((b, delay if "recurrent_ee" in made else 0, N_E), 0.3, seed + 1)
    made["feedforward"] = torch.rand(b, N_E + N_PV, generator=g, dtype=torch.float64)
    for kind, n in kinds.items():
        made[f"{kind}_u"] = torch.rand(b, n, generator=g, dtype=torch.float64)
        made[f"{kind}_trace"] = torch.rand(b, n, generator=g, dtype=torch.float64) * spikes((b, 1), 0.5, seed + 2)
    if "sigma" not in made:
        for name in ("pv_u", "pv_trace", "history"):
            made[name][-1] = 0
    if "VIP" in pathways:
        made["top_down"] = torch.rand(1, b, N_VIP, generator=g, dtype=torch.float64)
    return {name: value.to(dtype) for name, value in made.items()}


def run(op, given: dict[str, Tensor], constants: FC.CorticalConstants, steps: int) -> dict[str, Tensor]:
    """Spikes, the state after them, and all gradients of a random linear function of both."""
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    weights = FC.CorticalWeights(**{name: leaves.get(name) for name in FC.CorticalWeights._fields})
    cells = {k: FC.Interneurons(leaves[f"{k}_u"], leaves[f"{k}_trace"]) for k in ("pv", "sst", "vip")}
    state = FC.CorticalState(leaves["v"], leaves["history"], leaves["feedforward"], **cells)
    out, end = op(leaves["currents"], weights, constants, state, steps, leaves.get("top_down"))
    after = {"v": end.v, "history": end.history, "feedforward": end.feedforward}
    after |= {f"{k}_{part}": getattr(getattr(end, k), part) for k in cells for part in ("u", "trace")}
    made = {"spikes": out} | {f"{name} after": value for name, value in after.items() if value.numel()}
    loss = sum((value * torch.randn(value.shape, generator=rng(9), dtype=value.dtype)).sum() for value in made.values())
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    grads = {
        f"grad of {name}": torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
        if leaf.numel()
    }
    return {name: value.detach() for name, value in (made | grads).items()}


def constants_of(lif: EF.LIFConstants, filters: bool, spiking: bool, delay: int) -> FC.CorticalConstants:
    kinds = {"PV": 0.6, "SST": 0.8, "VIP": 0.0}
    return FC.CorticalConstants(
        lif=lif,
        decay=kinds,
        excitatory=0.5 * filters,
        inhibitory=0.4 * filters,
        delay=delay,
        thresholds=dict.fromkeys(kinds, 0.3) if spiking else None,
        quanta={kind: torch.tensor(0.5 + n / 4, dtype=torch.float64) for n, kind in enumerate(kinds)},
    )


def assert_equal_to_the_reference(given, constants, steps, tolerance):
    assert CIRCUITS.name(given["currents"], weights_of(given), constants) == "compiled"
    ours, reference = (run(op, given, constants, steps) for op in (ops.cortical_circuit, FC.cortical_circuit))
    assert list(ours) == list(reference)
    assert torch.equal(ours["spikes"], reference["spikes"])
    for name, value in reference.items():
        assert_agree(ours[name], value, tolerance, scale=1e-3)


@settings(max_examples=60)
@given(
    lif=CONSTANTS,
    pathways=st.sampled_from(PATHWAYS),
    filters=st.booleans(),
    spiking=st.booleans(),
    t=st.integers(1, 6),
    b=st.integers(1, 4),
    delay=st.integers(1, 4),
    static=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_equals_the_reference_in_value_and_every_gradient(lif, pathways, filters, spiking, t, b, delay, static, seed):
    given = inputs(pathways, 1 if static else t, b, delay, seed, torch.float64)
    assert_equal_to_the_reference(given, constants_of(lif, filters, spiking, delay), t, 1e-10)


@pytest.mark.parametrize("spiking", [False, True])
@pytest.mark.parametrize("pathways", PATHWAYS)
def test_two_hundred_steps_in_float64(pathways, spiking):
    given = inputs(pathways, 200, 3, 2, 1, torch.float64)
    assert_equal_to_the_reference(given, constants_of(EF.LIFConstants(4.0), True, spiking, 2), 200, 1e-8)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("pathways", [("E",), tuple(WITH)])
@pytest.mark.usefixtures("backend")
def test_step_by_step_with_the_population_operation(pathways, conv, monkeypatch):
    """As on a GPU, there by Triton's kernels."""
    monkeypatch.setitem(CIRCUITS.serves, "compiled", lambda *_: False)
    monkeypatch.setitem(CIRCUITS.serves, "triton", lambda *_: True)
    given = inputs(pathways, 3, 2, 2, 1, torch.float64)
    constants = constants_of(EF.LIFConstants(), True, False, 2)
    if conv:
        given, constants = on_maps(given, 1), replace(constants, recurrent=EF.Conv(), surround=EF.Conv())
    ours, reference = (run(op, given, constants, 3) for op in (ops.cortical_circuit, FC.cortical_circuit))
    assert torch.equal(ours["spikes"], reference["spikes"])
    for name, value in reference.items():
        assert_agree(ours[name], value, 1e-10, scale=1e-3)


@settings(max_examples=25)
@given(
    lif=CONSTANTS,
    pathways=st.sampled_from([p for p in PATHWAYS if {"E", "SST"} & {*p}]),
    filters=st.booleans(),
    spiking=st.booleans(),
    t=st.integers(1, 4),
    b=st.integers(1, 3),
    delay=st.integers(1, 3),
    static=st.booleans(),
    inside=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_maps_equal_the_reference(lif, pathways, filters, spiking, t, b, delay, static, inside, seed):
    given = on_maps(inputs((*pathways, "sigma"), 1 if static else t, b, delay, seed, torch.float64), 3)
    if inside:  # channels last
        given["currents"] = given["currents"].movedim(2, -1).contiguous().movedim(-1, 2)
    around, surround = (EF.Conv(padding=(n, n)) for n in (1, 2))
    constants = replace(constants_of(lif, filters, spiking, delay), recurrent=around, surround=surround)
    assert CIRCUITS.name(given["currents"], weights_of(given), constants) == "compiled steps"
    ours, reference = (run(op, given, constants, t) for op in (ops.cortical_circuit, FC.cortical_circuit))
    assert torch.equal(ours["spikes"], reference["spikes"])
    for name, value in reference.items():
        assert_agree(ours[name], value, 1e-9, scale=1e-3)


def on_maps(given: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """The same cells on a map of two rows of `size + 1`, whose recurrent weights are kernels of `size`, those of SST
    cells of `2 size - 1`."""
    maps = {"currents", "v", "feedforward", "history", "top_down", *(n for n in given if n.endswith(("_u", "_trace")))}
    positions = 0.2 + torch.rand(2, size + 1, generator=rng(5), dtype=torch.float64)
    spread = {name: x[..., None, None] * positions if name in maps and x.numel() else x for name, x in given.items()}
    for name in (name for name in given if name.startswith("recurrent")):
        taps = 2 * size - 1 if name == "recurrent_se" else size
        kernel = torch.rand(taps, taps, generator=rng(6), dtype=torch.float64)
        spread[name] = given[name][..., None, None] * kernel / kernel.sum()
    return spread


def weights_of(given: dict[str, Tensor]) -> FC.CorticalWeights:
    return FC.CorticalWeights(**{name: given.get(name) for name in FC.CorticalWeights._fields})


def test_threads_do_not_show(monkeypatch):
    given = inputs(tuple(WITH), 6, 5, 2, 3, torch.float32)
    constants, results = constants_of(EF.LIFConstants(), False, False, 2), []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(run(ops.cortical_circuit, given, constants, 6))
    for other in results[1:]:
        assert all(torch.equal(value, other[name]) for name, value in results[0].items())


def test_nan_does_not_vanish():
    given = inputs(("E",), 4, 2, 1, 0, torch.float64)
    given["currents"][1, 0, 3] = torch.nan
    out = run(ops.cortical_circuit, given, constants_of(EF.LIFConstants(), False, False, 1), 4)
    assert out["spikes"][1:, 0, 3].isnan().all()
    assert not out["spikes"][:, 1].isnan().any()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("currents", (4, 2, N_E), "third axis must be 24, got 19"),
        ("weight_ep", (N_E, N_PV + 1), r"the shape of weight_ep must be \[19, 5\], got \[19, 6\]"),
        ("gain_p", (1,), r"the shape of gain_p must be \[5\], got \[1\]"),
        ("recurrent_ve", None, r"recurrent weights reach must be \['e', 'p', 's', 'v'\], got \['e', 'p', 's'\]"),
        ("history", (2, 1, N_E), r"part of the state must be \[2, 2, 19\], got \[2, 1, 19\]"),
    ],
)
def test_what_does_not_fit_is_refused(name, shape, message):
    given = inputs(tuple(WITH), 4, 2, 2, 0, torch.float64)
    if shape is None:
        del given[name]
    else:
        given[name] = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        run(ops.cortical_circuit, given, constants_of(EF.LIFConstants(), False, False, 2), 4)


def test_what_the_routine_does_not_serve_runs_in_torch_operations():
    given = inputs(("E",), 4, 2, 1, 0, torch.float64)
    weights, constants = weights_of(given), constants_of(EF.LIFConstants(), False, False, 1)

    def name(weights=weights, constants=constants):
        return CIRCUITS.name(given["currents"], weights, constants)

    assert name() == "compiled"
    assert name(weights=weights._replace(bias=given["bias"].bfloat16())) == "torch"
    on_the_map = replace(constants, recurrent=EF.Conv())
    assert name(constants=on_the_map) == "torch"
    maps = on_maps(given, 1)  # whose divisor has no constant part
    assert CIRCUITS.name(maps["currents"], weights_of(maps), on_the_map) == "torch"
