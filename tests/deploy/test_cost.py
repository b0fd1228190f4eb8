"""Operations counted against a count by loops."""

import pytest
import torch
from circuits import rng

import eisnn
from eisnn.deploy import count_operations


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 0, 2)])
def test_a_convolution_by_hand(stride, padding, dilation):
    layer = eisnn.EIConv2d(2, 8, 3, stride, padding, dilation)
    x = (torch.rand(3, 2, 2, 6, 5, generator=rng(0)) < 0.4).float()
    eisnn.ei_init_(layer, x, generator=rng(1))
    rows = {row.pathway: row for row in count_operations(layer, x)}
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
    assert rows["I->E, divisive"].effective is None
    assert rows["E->E"].synapses == 8 * 2 * 9


@pytest.mark.parametrize("circuit", ["ei", "bn", "dann", "backei"])
def test_every_layer_of_a_network_is_counted(circuit):
    model = eisnn.create_model("convnet3", width=0.25, circuit=circuit)
    images = torch.rand(2, 3, 8, 8, generator=rng(0))
    if circuit == "ei":
        eisnn.ei_init_(model, images)
    rows = count_operations(model, images)
    assert {row.layer for row in rows} == {"layers.0", "layers.1", "layers.2", "readout"}
    assert all(row.dense > 0 for row in rows)
    assert model.training


def test_folding_saves_operations():
    model, images = eisnn.create_model("convnet3", width=0.25), torch.rand(2, 3, 8, 8, generator=rng(0))
    eisnn.ei_init_(model, images)
    whole, folded = (sum(row.dense for row in count_operations(m, images)) for m in (model, eisnn.fold(model)))
    assert folded < whole
