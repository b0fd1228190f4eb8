"""Operations counted against a count by loops."""

from collections import Counter
from itertools import product
from pathlib import Path
from runpy import run_path

import pytest
import torch
from circuits import rng
from networks import images, small
from torch import nn

import eisnn
from eisnn.cortex import CorticalConv2d, CorticalLinear, CorticalOptions
from eisnn.deploy import cost, hold
from eisnn.nn import CircuitOptions

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "operation_counts.py"


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 0, 2)])
def test_a_convolution_by_hand(stride, padding, dilation):
    layer = eisnn.EIConv2d(2, 8, 3, stride, padding, dilation)
    x = (torch.rand(3, 2, 2, 6, 5, generator=rng(0)) < 0.4).float()
    eisnn.ei_init_(layer, x, generator=rng(1))
    counted = cost(layer, x)
    rows = {row.pathway: row for row in counted.pathways}
    height, width = layer(x).shape[3:]
    dense = effective = 0
    for t in range(3):
        for b in range(2):
            for i in range(height):
                for j in range(width):
                    for di in range(3):
                        for dj in range(3):
                            r, c = i * stride + di * dilation - padding, j * stride + dj * dilation - padding
                            if 0 <= r < 6 and 0 <= c < 5:
                                dense += 2
                                effective += int((x[t, b, :, r, c] != 0).sum())
    assert rows["E->E"].dense == dense * 8 / 2
    assert rows["E->E"].effective == effective * 8 / 2
    assert rows["E->I"].dense == dense * 2 / 2
    assert rows["I->E, divisive"].dense == 3 * height * width * 8 * 2
    synapses = layer.synapses()
    active = (layer.connection.feedforward(x, synapses.weight_ie) != 0).sum((0, 1, 3, 4)).tolist()
    nonzero = (synapses.divisive != 0).sum(0).tolist()
    assert rows["I->E, divisive"].effective == sum(a * n for a, n in zip(active, nonzero, strict=True)) / 2
    assert rows["E->E"].synapses == 8 * 2 * 9
    assert rows["E->E"].accumulates
    (only,) = counted.layers
    assert only.divisions == only.updates == 3 * 8 * height * width
    assert only.spikes == float(layer(x).detach().sum()) / 2
    assert only.state_bytes == 4 * 8 * height * width


@pytest.mark.parametrize("spatial", [False, True])
def test_a_cortical_layer_counts_each_population_that_sends(spatial):
    options = CorticalOptions(sst=0.2, vip=0.2, recurrence=0.1, recurrent_size=3)
    made = CorticalConv2d(4, 16, 3, padding=1, options=options) if spatial else CorticalLinear(20, 16, options=options)
    x = (torch.rand(6, 3, *((4, 5, 5) if spatial else (20,)), generator=rng(0)) < 0.4).float()
    eisnn.ei_init_(made, x, generator=rng(1))
    counted = cost(made, x)
    rows = {row.pathway: row for row in counted.pathways}
    spikes = made(x)
    positions, taps = (25, 9) if spatial else (1, 1)
    assert rows["E->E, recurrent"].dense == 6 * positions * 16 * 16 * taps
    assert rows["E->E, recurrent"].effective == float((spikes != 0).sum()) * 16 * taps / 3
    assert rows["E->E, recurrent"].accumulates
    assert not rows["PV->E, divisive"].accumulates
    assert rows["VIP->SST"].dense == 6 * positions * made.sizes["VIP"] * made.sizes["SST"]
    assert 0 < rows["PV->E, divisive"].effective <= rows["PV->E, divisive"].dense
    (only,) = counted.layers
    assert only.neurons == positions * sum(made.populations().values())
    assert only.divisions == 6 * positions * 16


@pytest.mark.parametrize("circuit", ["ei", "bn", "dann", "backei", "cortex"])
def test_every_layer_of_a_network_is_counted(circuit):
    model = eisnn.create_model("convnet3", width=0.25, circuit=circuit)
    x = torch.rand(2, 3, 8, 8, generator=rng(0))
    if circuit in ("ei", "cortex"):
        eisnn.ei_init_(model, x)
    rows = cost(model, x).pathways
    assert {row.layer for row in rows} == {"layers.0", "layers.1", "layers.2", "readout"}
    assert all(row.dense > 0 for row in rows)
    assert model.training


def test_folding_saves_operations():
    model, x = eisnn.create_model("convnet3", width=0.25), torch.rand(2, 3, 8, 8, generator=rng(0))
    eisnn.ei_init_(model, x)
    whole, folded = (sum(row.dense for row in cost(m, x).pathways) for m in (model, eisnn.fold(model)))
    assert folded < whole


def test_zero_weights_do_nothing_and_graded_input_multiplies():
    layer = eisnn.EILinear(6, 8)
    x = torch.rand(2, 3, 6, generator=rng(0)) * (torch.rand(2, 3, 6, generator=rng(1)) < 0.5)
    eisnn.ei_init_(layer, x, generator=rng(2))
    with torch.no_grad():
        layer.weight_ee[:, 2] = 0
        layer.weight_ee[1] = 0
    row = cost(layer, x).pathways[0]
    assert row.zeros == 8 + 6 - 1
    expected = sum(int((x[:, :, k] != 0).sum()) * int((layer.weight_ee[:, k] != 0).sum()) for k in range(6)) / 3
    assert row.effective == expected
    assert not row.accumulates


def pooled_by_loops(layer, x, folded):
    """Operations of an image by pathway, dense and effective, and divisions, of a program that does nothing twice; and
    its currents."""
    s, divisor_s = layer.synapses(), layer.weights.sigma
    rows, n = (layer.stacked()[0] if folded else s.weight_ee).detach(), layer.n_e
    shared = rows[n] if folded else None  # the pooled kernel
    own = divisor_s is not None and bool((s.sigma != s.sigma[0]).any())
    counts, currents = Counter(), torch.zeros(*x.shape[:2], n, *x.shape[3:])

    def synapses(name, weight, active, there):
        counts[name, "dense"] += int(there.sum()) * len(weight)
        counts[name, "effective"] += int(((weight != 0) & active).sum())

    padded, inside = nn.functional.pad(x, (1,) * 4), nn.functional.pad(torch.ones_like(x[0, 0]), (1,) * 4)
    for t, b, i, j in product(*map(range, (*x.shape[:2], *x.shape[3:]))):
        patch, there = padded[t, b, :, i : i + 3, j : j + 3], inside[:, i : i + 3, j : j + 3]
        if folded:
            synapses("folded", rows[: n + 1], patch != 0, there)
            balanced, divisor = (rows[:n] * patch).sum((1, 2, 3)), (shared * patch).sum()[None]
        else:
            synapses("E->E", rows, patch != 0, there)
            synapses("E->I", s.weight_ie, patch != 0, there)
            u = (s.weight_ie * patch).sum((1, 2, 3))
            synapses("I->E, subtractive", s.subtractive, u != 0, torch.ones_like(u))
            synapses("I->E, divisive", s.divisive[:1], u != 0, torch.ones_like(u))
            balanced, divisor = (rows * patch).sum((1, 2, 3)) - s.subtractive @ u, s.divisive[:1] @ u
        if s.sigma is not None:
            divisor = divisor + (s.sigma if own else s.sigma[:1])
            for kind in ("dense", "effective"):
                counts["tonic->E, divisive", kind] += len(divisor)
        counts["divisions"] += len(divisor)
        counts["scalings"] += n if own else 2 * n
        currents[t, b, :, i, j] = layer.gain_e * (balanced / divisor if own else balanced * (1 / divisor)) + layer.bias
    return {key: count / x.shape[1] for key, count in counts.items()}, currents


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("sigma", ["none", "shared", "own"])
def test_a_pooled_convolution_by_hand(folded, sigma):
    """Its shared current, and where no neuron has a sigma of its own the division, are done once for all neurons."""
    options = CircuitOptions(conserved=True, pooled=True, semisaturation=0.0 if sigma == "none" else 0.3)
    layer = eisnn.EIConv2d(2, 8, 3, padding=1, options=options)
    x = (torch.rand(3, 2, 2, 6, 5, generator=rng(0)) < 0.6).float()
    eisnn.ei_init_(layer, x, generator=rng(1))
    if sigma == "own":
        layer.weights.sigma.data.uniform_(0.5, 1.5, generator=rng(2))
    with torch.no_grad():
        expected, currents = pooled_by_loops(layer, x, folded)
        torch.testing.assert_close(currents, layer.integrated(x))
    counted = cost(eisnn.fold(layer) if folded else layer, x)
    (only,) = counted.layers
    found = {"divisions": only.divisions, "scalings": only.scalings}
    for p in counted.pathways:
        found |= {(p.pathway, "dense"): p.dense, (p.pathway, "effective"): p.effective}
    assert found == expected
    assert only.divisions == (720 if sigma == "own" else 90)
    macs, acs = only.operations(False)
    assert macs + acs == sum(p.dense for p in counted.pathways) + only.scalings + 2 * only.updates


def test_neurobench_s_totals_and_energy():
    model, x = small(dtype=torch.float32), images(dtype=torch.float32)
    counted = cost(model, x)
    found = counted.json()
    spikes = []
    for layer in model.layers:
        layer.register_forward_hook(lambda m, args, out: spikes.append(out.detach()))
    model(x)
    fired, units = sum(float(s.sum()) for s in spikes), sum(s.numel() for s in spikes)
    assert found["activation_sparsity"] == pytest.approx(1 - fired / units)
    assert found["membrane_updates"] == units / len(x)
    synaptic = found["synaptic_operations"]
    assert synaptic["Effective_MACs"] + synaptic["Effective_ACs"] == sum(p.effective for p in counted.pathways)
    assert synaptic["Effective_ACs"] == 0  # pixels, means of four spikes, I neurons: none is 0 or 1
    assert found["neuron_operations"]["divisions"] == 8 * 64 + 3 * (16 * 16 + 32 * 4)
    first = counted.layers[0]
    macs = sum(p.effective for p in first.pathways) + 8 * 64 + first.updates
    assert first.energy(True)[0] == pytest.approx(4.6 * macs + 0.9 * first.spikes + 4 * 4.6 * 8 * 64)
    assert first.energy(True)[1] == 5.0 * (3 * sum(p.effective for p in first.pathways) + 2 * first.updates)
    accesses = {kind: sum(row["memory_accesses"][kind] for row in found["layers"]) for kind in ("dense", "effective")}
    assert found["memory_accesses"] == accesses
    for row in found["layers"]:
        of_paths = sum(p["memory_accesses"]["effective"] for p in row["pathways"])
        assert of_paths == 3 * sum(p["effective"] for p in row["pathways"])
        assert row["memory_accesses"]["effective"] == of_paths + 2 * row["membrane_updates"]
    (total,) = [line.split(" | ") for line in counted.table().splitlines() if line.startswith("| all")]
    printed = [float(total[k].replace(",", "")) * 1e3 for k in (6, 9)]  # of synapses, of potentials
    assert sum(printed) == pytest.approx(accesses["effective"], abs=100)
    assert counted.table().count("\n") == 1 + sum(len(layer.pathways) for layer in counted.layers) + 1


@pytest.mark.parametrize("circuit", ["bn", "ei"])
def test_neurobench_counts_the_same_where_it_can_see(circuit):
    """Convolutions of the twin, and of a circuit whose divisors are held; of a circuit itself it sees nothing."""
    pytest.importorskip("neurobench", reason="pip install --no-deps neurobench")
    theirs = run_path(str(BENCHMARK))["theirs"]
    x = images(dtype=torch.float32)
    model = small(dtype=torch.float32) if circuit == "ei" else eisnn.create_model("convnet3", circuit="bn", width=0.25)
    seen = hold(model, x) if circuit == "ei" else eisnn.fold(model)
    hidden = [p for p in cost(seen, x).pathways if p.layer != "readout"]
    found = theirs(seen, x)
    assert found["SynapticOperations"]["Dense"] == sum(p.dense for p in hidden)
    assert found["SynapticOperations"]["Effective_MACs"] == pytest.approx(sum(p.effective for p in hidden), rel=1e-6)
    assert found["SynapticOperations"]["Effective_MACs"] > 0
    if circuit == "ei":
        assert theirs(model, x)["SynapticOperations"]["Dense"] == 0
