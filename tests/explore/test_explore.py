"""`eisnn explore`: what the sliders do, and the page in a real browser."""

import socket
import sys
import threading
import urllib.error
import urllib.request

import pytest
import torch
from browser import PHONE, is_wider_than_the_screen, opened
from train_runs import tiny, write_images

import eisnn
from eisnn.analysis import UndefinedDivision, spiking_layers
from eisnn.analysis.stimuli import scale_contrast
from eisnn.cli import main
from eisnn.cortex import CorticalOptions
from eisnn.explore import serve
from eisnn.explore.laboratory import BINS, Laboratory, Setting, indices
from eisnn.nn.options import PLUS
from eisnn.train import fit


def network(**options):
    torch.manual_seed(0)
    model = eisnn.create_model("convnet3", time_steps=2, width=0.25, **options).eval()
    eisnn.ei_init_(model, torch.rand(6, 3, 16, 16))
    return model


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(20, 3, 16, 16, generator=generator), torch.randint(10, (20,), generator=generator)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explore")
    config = tiny(write_images(folder / "images"), circuit_options=PLUS)
    return fit(config, folder / "run", quiet=True).run_dir


def test_the_default_setting_is_the_network_itself(batch):
    model, (images, labels) = network(), batch
    laboratory = Laboratory(model, images, labels)
    expected = 100 * (model(images).argmax(-1) == labels).float().mean()
    assert laboratory.intact.accuracy == pytest.approx(float(expected))
    assert laboratory.layers == ["layers.0", "layers.1", "layers.2"]
    assert laboratory.respond(Setting()) == laboratory.intact
    for counts in laboratory.intact.currents.values():
        assert len(counts) == BINS
        assert sum(counts) == pytest.approx(1)


@pytest.mark.parametrize(
    ("field", "value", "direction"),
    [("subtractive", 0.0, 1), ("subtractive", 2.0, -1), ("divisive", 0.25, 1), ("silenced", 0.5, 1)],
)
def test_inhibition_holds_the_first_layer_down(batch, field, value, direction):
    laboratory = Laboratory(network(), *batch)
    rate = laboratory.respond(Setting(**{field: value})).rates["layers.0"]
    assert direction * (rate - laboratory.intact.rates["layers.0"]) > 0.005
    assert laboratory.respond(Setting()) == laboratory.intact  # nothing stays behind


def test_stimuli_change_and_are_the_same_again(batch):
    laboratory = Laboratory(network(), *batch)
    for setting in (Setting(contrast=0.0), Setting(noise=0.3)):
        response = laboratory.respond(setting)
        assert response.currents["layers.0"] != laboratory.intact.currents["layers.0"]
        assert laboratory.respond(setting) == response


def test_no_divisive_inhibition_at_all(batch):
    with pytest.raises(UndefinedDivision, match=r"no divisive inhibition is left in layers\.0"):
        Laboratory(network(), *batch).respond(Setting(divisive=0.0))
    with_sigma = Laboratory(network(circuit_options=PLUS), *batch).respond(Setting(divisive=0.0))
    assert with_sigma.rates["layers.0"] > 0


def test_a_network_without_circuits(batch):
    laboratory = Laboratory(network(circuit="bn"), *batch)
    assert not laboratory.inhibited
    assert laboratory.respond(Setting(subtractive=0.0)) == laboratory.intact
    assert laboratory.respond(Setting(contrast=0.2)) != laboratory.intact


def test_chosen_neurons_of_one_layer_are_silenced(batch):
    model = network()
    laboratory = Laboratory(model, *batch)
    assert laboratory.inhibited == {name: layer.n_i for name, layer in spiking_layers(model).items()}
    count = laboratory.inhibited["layers.1"]
    lesion = laboratory.respond(Setting(layer="layers.1", neurons=tuple(range(count // 2))))
    assert lesion.rates["layers.0"] == laboratory.intact.rates["layers.0"]
    assert lesion.rates["layers.1"] > laboratory.intact.rates["layers.1"]
    half = Setting(layer="layers.1", silenced=0.5)
    assert laboratory.respond(half).rates["layers.0"] == laboratory.intact.rates["layers.0"]
    with pytest.raises(ValueError, match=rf"must be indices of its {count} I neurons"):
        laboratory.respond(Setting(layer="layers.1", neurons=(count,)))
    with pytest.raises(ValueError, match="choose it under 'Inhibition changes in'"):
        laboratory.respond(Setting(neurons=(0,)))
    assert laboratory.respond(Setting()) == laboratory.intact


def test_chosen_e_neurons_of_one_layer_fire_no_more(batch):
    """As if the layer above had no synapses from them; its own currents are as before, also beside a lesion of I."""
    model = network()
    laboratory = Laboratory(model, *batch)
    for other in ({}, {"neurons": (0,)}):
        whole = laboratory.respond(Setting(layer="layers.1", **other))
        lesion = laboratory.respond(Setting(layer="layers.1", silent_e=(3, 0), **other))
        assert lesion.currents["layers.1"] == whole.currents["layers.1"]
        assert lesion.rates["layers.0"] == whole.rates["layers.0"]
        assert 0 < lesion.rates["layers.1"] < whole.rates["layers.1"]
        assert lesion.currents["layers.2"] != whole.currents["layers.2"]
    everything = laboratory.respond(Setting(layer="layers.1", silent_e=tuple(range(model.layers[1].n_e))))
    assert everything.rates["layers.1"] == 0
    assert laboratory.respond(Setting()) == laboratory.intact
    with pytest.raises(ValueError, match=rf"indices of its {model.layers[1].n_e} E neurons \(channels\)"):
        laboratory.respond(Setting(layer="layers.1", silent_e=(model.layers[1].n_e,)))
    with pytest.raises(ValueError, match="neurons are those of one layer"):
        laboratory.respond(Setting(silent_e=(0,)))


@pytest.mark.parametrize(
    ("typed", "meant"), [("", ()), (None, ()), ("3", (3,)), ("0, 2,5-7", (0, 2, 5, 6, 7)), (" 4 4 ", (4,))]
)
def test_neurons_as_they_are_typed(typed, meant):
    assert indices(typed) == meant


@pytest.mark.parametrize("typed", ["a", "1-", "-1", "1.5", "2--3", "1;2"])
def test_neurons_typed_wrong(typed):
    with pytest.raises(ValueError, match=r"neurons are given as 3 or 0, 2, 5-8; got"):
        indices(typed)


def test_what_is_looked_at_image_by_image(batch):
    model, (images, _) = network(), batch
    response = Laboratory(model, *batch).respond(Setting(contrast=0.5))
    assert torch.equal(response.seen, scale_contrast(images, 0.5)[[0, 3, 5, 8, 11, 14, 16, 19]])
    assert torch.equal(response.answers, model(response.seen).argmax(-1))
    assert response.spikes["layers.0"].shape == (2, 8, 60)
    assert set(response.spikes["layers.0"].unique().tolist()) == {0.0, 1.0}


def test_cells_of_a_cortical_network(batch):
    options = CorticalOptions(sst=0.25, vip=0.25)
    laboratory = Laboratory(network(circuit="cortex", circuit_options=options), *batch)
    assert laboratory.cells == ["PV", "SST", "VIP"]
    assert not laboratory.inhibited
    without = laboratory.respond(Setting(cells={"PV": 0.0}))
    assert without.rates["layers.0"] > laboratory.intact.rates["layers.0"]
    assert laboratory.respond(Setting()) == laboratory.intact


@pytest.mark.parametrize(
    ("options", "sliders"),
    [
        ({}, {"subtractive", "divisive", "silenced", "contrast", "noise"}),
        ({"circuit": "bn"}, {"contrast", "noise"}),
        ({"circuit": "cortex"}, {"contrast", "noise", "cells-PV"}),
    ],
)
def test_a_network_has_the_sliders_that_change_it(batch, options, sliders):
    pytest.importorskip("dash")
    from eisnn.explore.page import make_app

    app = make_app(Laboratory(network(**options), *batch), [str(k) for k in range(10)], "title", "subtitle")
    found = [part for part in app.layout._traverse() if type(part).__name__ == "Slider"]
    assert {slider.id for slider in found} == sliders
    update = next(item for key, item in app.callback_map.items() if "accuracy" in key)
    assert {item["id"] for item in update["inputs"]} == sliders | {"layer", "changed", "neurons", "silent-e"}


@pytest.fixture
def address(run):
    pytest.importorskip("dash")
    server = serve(run, images=24)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_this_machine_is_served(address, run):
    port = int(address.rsplit(":")[-1].strip("/"))
    with urllib.request.urlopen(address) as answer:
        assert b"Explore run" in answer.read()
    elsewhere = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(elsewhere)
    with socket.socket() as other:  # nothing listens at this machine's other addresses
        other.bind(("127.0.0.2", port))
    with pytest.raises(OSError, match=f"port {port} is in use by another program"):
        serve(run, images=2, port=port)


def test_the_page_in_a_browser(address):
    with opened(address) as page:
        page.wait_for_selector("#accuracy:not(:empty)")
        page.wait_for_selector("#currents svg")
        rate = page.inner_text("#rate")
        page.locator("#silenced [role=slider]").focus()
        page.keyboard.press("End")
        page.wait_for_function("rate => document.querySelector('#rate').innerText != rate", arg=rate)
        assert float(page.inner_text("#rate")) > float(rate)  # without inhibition
        page.click("text=Back to the intact network")
        page.wait_for_function("rate => document.querySelector('#rate').innerText == rate", arg=rate)
        assert page.inner_text("#message") == ""
        page.fill("#silenced-typed", "1")
        page.keyboard.press("Enter")
        page.wait_for_function("rate => document.querySelector('#rate').innerText != rate", arg=rate)
        assert page.get_attribute("#silenced [role=slider]", "aria-valuenow") == "1"
        page.fill("#silenced-typed", "")  # what is no number changes nothing
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#silenced-typed').value == '1'")
        page.click("text=Back to the intact network")
        page.wait_for_function("rate => document.querySelector('#rate').innerText == rate", arg=rate)
        assert page.input_value("#silenced-typed") == "0"
        page.fill("#neurons", "0-1")
        page.keyboard.press("Enter")
        page.wait_for_selector("#message:not(:empty)")
        assert "neurons are those of one layer" in page.inner_text("#message")
        page.click("text=Back to the intact network")
        page.wait_for_function("rate => document.querySelector('#rate').innerText == rate", arg=rate)
        assert page.locator("#images img").count() == 8
        page.wait_for_selector("#raster .points path", state="attached")
        page.set_viewport_size(PHONE)
        page.wait_for_timeout(300)  # charts follow the size
        assert not is_wider_than_the_screen(page)
        assert page.complaints == []
        assert all(request.startswith((address, "data:", "blob:")) for request in page.requests), page.requests


def test_what_cannot_be_explored(tmp_path, capsys, monkeypatch):
    assert main(["explore", str(tmp_path)]) == 2
    assert "holds no run: there is no config.json in it" in capsys.readouterr().err
    assert main(["explore", str(tmp_path), "--port", "65536"]) == 2
    assert capsys.readouterr().err == "eisnn: port must be in [0, 65535], got 65536\n"
    monkeypatch.setitem(sys.modules, "dash", None)
    monkeypatch.delitem(sys.modules, "eisnn.explore.page", raising=False)
    assert main(["explore", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "eisnn: explore needs dash, which is not installed: pip install 'eisnn[explore]'\n"
    )
