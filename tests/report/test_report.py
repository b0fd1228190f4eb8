"""`eisnn report`: the page of a small run, read as text and seen in a real browser."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import torch
from browser import PHONE, is_wider_than_the_screen, opened
from train_runs import interrupt_at, keep_first_checkpoints, tiny, write_images

from eisnn.analysis import contour_correlation, contour_strength
from eisnn.cli import main
from eisnn.deploy import cost
from eisnn.explore.laboratory import Laboratory
from eisnn.models import SpikingNetwork
from eisnn.nn.options import PLUS
from eisnn.report import classes, costs, inside, overview, report
from eisnn.report.opened import open_run
from eisnn.report.page import Fact, Figure, Panel, Section, Table, render
from eisnn.train import Diverged, Interrupted, Run, fit
from eisnn.train import loss as objective
from eisnn.train.checkpoint import load_checkpoint

SECTIONS = [
    "Training",
    "Layers",
    "Currents at initialization and after training",
    "Balance of excitation and inhibition",
    "Weights",
    "Gain control",
    "Lesions",
    "Classes",
    "Feature maps",
    "Cost",
    "Configuration",
    "Origin",
]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100"><rect width="200" height="100"/></svg>'


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def runs(images):
    """A run of the paper's circuit, in exact balance, and with batch norm."""
    kinds = {"paper": {}, "plus": {"circuit_options": PLUS}, "bn": {"circuit": "bn"}}
    folders = {}
    for name, changes in kinds.items():
        with pytest.MonkeyPatch.context() as patch:
            keep_first_checkpoints(patch, 1)
            folders[name] = fit(tiny(images, **changes), images / "runs" / name, quiet=True).run_dir
    return folders


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    """The page of the paper's circuit against batch norm."""
    return report(runs["paper"], against=runs["bn"], out=tmp_path_factory.mktemp("page") / "page.html", images=24)


class Outline(HTMLParser):
    """Headings, anchors, links, pictures and words of a page."""

    def __init__(self, html):
        super().__init__()
        self.anchors, self.links, self.pictures, self.words, self.headings = [], [], [], [], []
        self._tag = None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        found, self._tag = dict(attributes), tag
        self.anchors += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.pictures += [found] if tag == "img" else []

    def handle_data(self, data):
        if self._tag == "h2" and data.strip():
            self.headings.append(data)
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def outline(file):
    return Outline(file.read_text(encoding="utf-8"))


def test_the_page_has_all_sections_and_each_can_be_reached(page):
    seen = outline(page)
    assert seen.headings == ["Contents", *SECTIONS]
    targets = [link.removeprefix("#") for link in seen.links]
    assert len(set(targets)) == len(SECTIONS) + 1  # and the top
    assert set(targets) <= set(seen.anchors)
    assert len(seen.anchors) == len(set(seen.anchors))


def test_attention_is_told_of_but_is_no_circuit(images, tmp_path):
    network = {"model": "spikformer-2-64", "attention": "divisive", "circuit_options": PLUS, "width": 0.25}
    folder = fit(tiny(images, epochs=1, warmup_epochs=0, lr=0.005, **network), tmp_path / "run", quiet=True).run_dir
    run, name = open_run(folder, images=8), "stages.0.blocks.0.attention"
    told = {section.__name__: str(section(run)) for section in (overview.layers, inside.balance, inside.weights)}
    assert [name in text for text in told.values()] == [True, False, False]
    assert "stages.0.blocks.0.out" in told["balance"]
    assert name in run.drawn
    assert name not in run.drawn_circuits


def test_no_pass_through_the_network_is_made_twice_over(runs, tmp_path, monkeypatch):
    """Of 3 layers: 42 with doses and 10 with lesions of one layer, 30 for gain control of all layers together."""
    passes, forward = [], SpikingNetwork.forward
    monkeypatch.setattr(SpikingNetwork, "forward", lambda self, *a, **k: passes.append(self) or forward(self, *a, **k))
    report(runs["paper"], out=tmp_path / "page.html", images=24)
    assert len(passes) <= 95


def test_the_page_needs_nothing_else(page):
    html = page.read_text(encoding="utf-8")
    assert len(html) < 5e6
    assert not re.search(r"<(script|link rel=.stylesheet|iframe)|@import|url\(", html)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(address.startswith(("#", "data:")) for address in addresses)


def test_each_picture_is_described_and_each_figure_explained(page):
    html = page.read_text(encoding="utf-8")
    pictures = outline(page).pictures
    assert len(pictures) >= 4 + 3 * 5 + 4 + 3
    assert all(len(picture["alt"]) > 25 for picture in pictures)
    assert len({picture["src"] for picture in pictures}) == len(pictures)
    explained = re.findall(r"<figcaption>(.{60,}?)</figcaption>", html, re.DOTALL)
    assert len(explained) == html.count("<figure>") >= 8


def test_costs_are_those_of_the_command(runs, page):
    opened = open_run(runs["paper"], 24)
    counted = cost(opened.model, opened.images)
    (table,) = [block for block in costs.costs(opened).blocks if isinstance(block, Table)]
    written, folded = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    dense, effective = (sum(getattr(p, kind) for p in counted.pathways) / 1e3 for kind in ("dense", "effective"))
    assert written["dense, k"] == f"{dense:,.1f}"
    assert written["effective, k"] == f"{effective:,.1f}"
    assert written["memory traffic, nJ"] == f"{counted.energy(True)[1] / 1e3:,.1f}"
    assert float(folded["dense, k"].replace(",", "")) < dense
    assert written["dense, k"] in outline(page).text


def test_the_numbers_are_those_of_the_run(page, runs):
    text, run = outline(page).text, Run(runs["paper"])
    last = run.metrics()[-1]
    assert f"accuracy on test images after epoch 2 {last['test_accuracy']:.1f} %" in text
    assert f"{last['test_firing_rate']:.3f}" in text
    for field, value in run.config().fields().items():
        assert not isinstance(value, int | float | str) or f"{field} {value}" in text
    assert "layers.0 EIConv2d 8 2 27 " in text
    assert "bn (convnet3, batch norm)" in text


def test_the_paper_circuit_without_any_division_has_no_response(page):
    """Silencing all I neurons leaves nothing to divide by: said, not drawn."""
    text = outline(page).text
    assert "Doses that are not drawn: no divisive inhibition is left in layers.0" in text


def test_exact_balance(runs, tmp_path):
    seen = outline(report(runs["plus"], out=tmp_path / "new folder" / "page.html", images=12))
    assert seen.headings[1:] == SECTIONS
    assert "exact balance" in seen.text
    assert "not drawn" not in seen.text  # semisaturation divides where inhibition does not
    assert "With `--against RUN` another run" in seen.text


def test_batch_norm_leaves_out_what_has_no_meaning(runs):
    seen = outline(report(runs["bn"], images=12))
    assert (runs["bn"] / "report.html").exists()
    assert seen.headings[1:] == SECTIONS
    assert seen.text.count("This network has no E-I circuits") == 3
    assert "current that the neurons integrate" in seen.text
    assert "wrong sign" not in seen.text


def test_sections_of_the_paper_circuit_say_so_of_another(images, tmp_path):
    run = fit(tiny(images, circuit="cortex", evaluate_epochs=2), tmp_path / "run", quiet=True).run_dir
    seen = outline(report(run, images=12))
    assert seen.headings[1:] == SECTIONS
    assert seen.text.count("The circuits of 'cortex' have other pathways than the paper's") == 3
    assert "no E-I circuits" not in seen.text
    assert "parameters of the wrong sign" in seen.text


def test_a_circuit_that_cannot_be_looked_into(images, tmp_path, capsys):
    """It is reported as far as it goes; also evaluated only at the end."""
    run = fit(tiny(images, circuit="dann", evaluate_epochs=2, average=0.5), tmp_path / "run", quiet=True).run_dir
    seen = outline(report(run, against=run, images=12))
    assert seen.headings[1:] == SECTIONS
    assert seen.text.count("Nothing spikes in circuit dann") == 5
    assert "Learning curves" in seen.text
    assert "the same with averaged weights" in seen.text
    assert main(["explore", str(run)]) == 2
    assert "cannot be explored. Nothing spikes in circuit dann" in capsys.readouterr().err


def test_an_ablated_circuit_is_not_perturbed(images, tmp_path):
    run = fit(tiny(images, ablation="epsilon-1e-3"), tmp_path / "run", quiet=True).run_dir
    seen = outline(report(run, images=12))
    assert seen.headings[1:] == SECTIONS
    assert "E-I circuit, ablation epsilon-1e-3" in seen.text
    assert seen.text.count("A part of these circuits is ablated (epsilon-1e-3)") == 3
    seen_by = open_run(run, 12)
    assert not Laboratory(seen_by.model, seen_by.images, seen_by.labels).inhibited


def test_a_network_without_maps_and_one_too_deep_to_draw_whole(images, tmp_path, monkeypatch):
    for name, changes in {"mlp": {"model": "mlp", "width": 0.05}, "deep": {"model": "vgg11", "width": 0.05}}.items():
        fit(tiny(images, epochs=1, image_size=32, **changes), tmp_path / name, quiet=True)
    mlp = outline(report(tmp_path / "mlp", images=12)).text
    assert "The first layer of this network has no map" in mlp
    assert "r over space" in mlp
    monkeypatch.setattr("eisnn.report.opened.MOST_LAYERS", 3)
    deep = open_run(tmp_path / "deep", images=12)
    assert deep.drawn == ["layers.0", "layers.4", "layers.7"]
    for section in (inside.currents(deep), inside.balance(deep), inside.weights(deep)):
        assert "Shown are 3 of 8 layers, evenly chosen." in section.text
        assert [panel.heading for panel in section.blocks[0].panels] == deep.drawn


@pytest.mark.parametrize("kind", ["paper", "plus", "bn"])
def test_the_network_before_training_is_that_of_the_run(runs, kind):
    """A run keeps no weights from before its first step: the seed makes them again, bit for bit."""
    tensors, _ = load_checkpoint(runs[kind] / "step-0")
    made = open_run(runs[kind], images=2).initial.state_dict()
    assert {f"model.{name}" for name in made} == {name for name in tensors if name.startswith("model.")}
    for name, value in made.items():
        assert torch.equal(value, tensors[f"model.{name}"]), name


def test_data_that_has_changed_makes_no_initial_network(runs, tmp_path):
    fewer = write_images(tmp_path / "images")
    next((fewer / "train" / "r").iterdir()).unlink()
    opened_run = open_run(runs["paper"], images=2, data_path=str(fewer))
    assert opened_run.initial is None
    assert "66 training images" in opened_run.no_initial
    section = inside.currents(opened_run)
    assert "The initial network is not shown: the data set" in section.text
    distributions, shape = section.blocks
    assert [key.label for key in distributions.legend] == ["after training", "threshold"]
    assert all(row[1] == "–" and row[2] != "–" for row in shape.rows)


def test_a_run_that_has_not_ended_says_so(images, tmp_path, monkeypatch):
    real, calls = objective.cross_entropy, 0

    def diverging(*args):
        nonlocal calls
        calls += 1
        return real(*args) * (float("inf") if calls > 7 else 1)

    monkeypatch.setattr(objective, "cross_entropy", diverging)
    with pytest.raises(Diverged):
        fit(tiny(images, checkpoint_seconds=0), tmp_path / "run", quiet=True)
    diverged, unfinished = overview.notes(open_run(tmp_path / "run", images=2))
    assert diverged.startswith("This run has diverged: the loss is not finite at epoch 2")
    assert unfinished.startswith("This run has not ended: 1 of 2 epochs.")


def test_a_run_before_its_first_epoch_has_no_curves(images, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(Interrupted):
        fit(tiny(images), tmp_path / "run", quiet=True)
    opened_run = open_run(tmp_path / "run", images=2)
    section = overview.training(opened_run, None)
    assert section.text == "No epoch has ended, so there is no curve to draw."
    assert not section.blocks
    assert "accuracy of guessing" in [fact.label for fact in overview.facts(opened_run)]


def test_what_is_no_run(runs, tmp_path, capsys):
    cases = {
        tmp_path: "holds no run: there is no config.json in it",
        tmp_path / "nowhere": "one of the networks in the package (cifar10-vgg8-bn-quarter, ",
        runs["paper"] / "best.safetensors": "is a file; give the folder of the run",
    }
    for folder, message in cases.items():
        assert main(["report", str(folder)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert str(folder) in error
    Run(tmp_path / "empty").create(tiny(runs["paper"].parent.parent))
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "holds no trained network: there is no last.safetensors" in capsys.readouterr().err
    assert main(["report", str(runs["paper"]), "--out", str(tmp_path)]) == 2
    assert "could not be written: it is a folder; name a file" in capsys.readouterr().err
    file = runs["paper"] / "config.json"
    assert main(["report", str(runs["paper"]), "--out", str(file / "page.html")]) == 2
    assert f"could not be written: {file} is a file; name a folder" in capsys.readouterr().err
    assert main(["report", str(runs["paper"]), "--images", "0"]) == 2
    assert "images is 0, expected at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"kind": []}',
        b"\xff\x00",
        "test_accuracy",
        "test_average_accuracy",
        "test_firing_rate",
    ],
)
def test_a_line_that_is_no_record_is_named(runs, tmp_path, capsys, line):
    """By the file and its line; a field by itself: of the wrong type, in an epoch that is right otherwise."""
    run = Run(shutil.copytree(runs["paper"], tmp_path / "run"))
    if isinstance(line, str):
        line = json.dumps(run.metrics()[-1] | {line: []}).encode()
    number = len(run.metrics_file.read_bytes().splitlines()) + 1
    with open(run.metrics_file, "ab") as file:
        file.write(line + b"\n")
    assert main(["report", str(run.folder)]) == 2
    assert f"{run.metrics_file} is damaged: line {number} is " in capsys.readouterr().err


def test_an_epoch_whose_test_is_incomplete_is_named(runs, tmp_path, capsys):
    run = Run(shutil.copytree(runs["paper"], tmp_path / "run"))
    last = run.metrics()[-1]
    del last["test_firing_rate"]
    with open(run.metrics_file, "a") as file:
        file.write(json.dumps(last) + "\n")
    assert main(["report", str(run.folder)]) == 2
    assert "is damaged: line" in capsys.readouterr().err


def test_runs_on_other_data_are_not_compared(runs, images, tmp_path):
    other = fit(tiny(images, image_size=24, epochs=1), tmp_path / "other", quiet=True).run_dir
    with pytest.raises(ValueError, match=r"saw other images than .*24 pixels and .*16 pixels"):
        report(runs["paper"], against=other, images=2)


def test_without_the_extra_it_says_what_to_install(runs):
    code = """
import sys
from eisnn.cli import main
for module in ("matplotlib", "jinja2"):
    sys.modules[module] = None
    assert main(["report", sys.argv[1]]) == 2
    del sys.modules[module]
"""
    done = subprocess.run([sys.executable, "-c", code, runs["paper"]], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        f"eisnn: report needs {module}, which is not installed: pip install 'eisnn[report]'"
        for module in ("matplotlib", "jinja2")
    ]


def test_the_command_names_the_file(runs, tmp_path, capsys):
    out = tmp_path / "out.html"
    assert main(["report", str(runs["bn"]), "--out", str(out), "--images", "8"]) == 0
    assert re.fullmatch(rf"{out} \(\d\.\d MB\); open it in a browser\n", capsys.readouterr().out)


def test_text_is_escaped():
    table = Table("<b>", ["<i>"], [["<u>"]])
    html = render("<title>", "a & b", [Fact("<1", "x")], ["<note>"], [Section("S", "<p>", [table])])
    assert not re.search(r"<(b|i|u|note)>", html)
    assert "a &amp; b" in html


# In a browser


@pytest.fixture(scope="module")
def address(page):
    return page.as_uri()


def test_a_browser_has_no_complaints_and_every_picture_loads(address):
    with opened(address) as shown:
        assert shown.complaints == []
        assert all(request.startswith(("file:", "data:")) for request in shown.requests)
        sizes = shown.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth, i.clientWidth])")
        assert len(sizes) >= 26
        assert all(complete and natural > 50 and client > 50 for complete, natural, client in sizes)
        assert not is_wider_than_the_screen(shown)


def test_the_table_of_contents_leads_to_the_sections(address):
    with opened(address, reduced_motion="reduce") as shown:
        for link in shown.locator("nav a").all():
            link.click()
            target = shown.locator(link.get_attribute("href"))
            assert target.locator("h2").inner_text() == link.inner_text()
            assert target.evaluate("e => e.getBoundingClientRect().top < innerHeight")


def test_confusions_are_counted(runs):
    opened_run = open_run(runs["paper"], images=24)
    answers = opened_run.model(opened_run.images).argmax(-1)
    section = classes.classes(opened_run)
    assert f"{int((answers == opened_run.labels).sum())} are right" in section.text
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    names = opened_run.dataset.classes
    for pair, count, part in table.rows:
        true, said = (names.index(name) for name in pair.split(" taken for "))
        images = opened_run.labels == true
        assert int(count) == int((answers[images] == said).sum())
        assert int(part) == round(100 * int(count) / int(images.sum()))
    assert sum(int(count) for _, count, _ in table.rows) == int((answers != opened_run.labels).sum())


def test_every_field_of_the_configuration_has_a_meaning(runs):
    (table,) = overview.configuration(open_run(runs["paper"], images=2)).blocks
    assert [name for name, _, meaning in table.rows if not meaning] == []
    meanings = {name: meaning for name, _, meaning in table.rows}
    assert meanings["network.circuit_options.conserved"].startswith("exact balance")
    assert "network.circuit_options.division.kind" in meanings


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_downwards_only(address, scheme):
    with opened(address, viewport=PHONE, color_scheme=scheme) as shown:
        assert not is_wider_than_the_screen(shown)
        assert shown.locator("nav").is_visible()
        rows = shown.eval_on_selector_all("#configuration tr", "all => all.map(row => row.clientHeight)")
        assert max(rows) < PHONE["height"] / 3  # no column of single words
        text, page_color = shown.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) / 3 for color in (text, page_color)]
        assert abs(brightness[0] - brightness[1]) > 150  # legible in both
        headings = shown.eval_on_selector_all(".table:not(.text) tbody th", "all => all.map(th => th.clientWidth)")
        assert max(headings) < 0.6 * PHONE["width"]  # they stay where they are while the numbers scroll
        panels = shown.eval_on_selector_all(".panel", "all => all.map(p => getComputedStyle(p).backgroundColor)")
        assert set(panels) == {"rgba(0, 0, 0, 0)"}  # no white ones on a dark page
        inverted = shown.eval_on_selector_all(
            ".panel:not(.photo) img", "all => all.map(p => getComputedStyle(p).filter)"
        )
        assert set(inverted) == {"invert(1) hue-rotate(180deg)" if scheme == "dark" else "none"}


def test_on_paper(address):
    with opened(address) as shown:
        shown.emulate_media(media="print")
        assert not shown.locator("nav").is_visible()
        widths = shown.eval_on_selector_all(".panel", "all => all.map(p => p.clientWidth)")
        assert max(widths) < 0.5 * shown.viewport_size["width"]
        assert shown.pdf(format="A4").startswith(b"%PDF")


def test_a_page_made_of_any_parts(tmp_path):
    """Long words and wide tables neither break the page nor make it scroll sideways."""
    table = Table("T" * 200, [f"column {k}" for k in range(40)], [["x" * 300, *["1.23456"] * 39]])
    figure = Figure("F", [Panel(SVG, "a box", "h" * 100)] * 7, "How to read it.")
    file = tmp_path / "page.html"
    file.write_text(render("n" * 300, "", [Fact("1", "l")], [], [Section("One", "t", [table, figure])]))
    with opened(file.as_uri(), viewport=PHONE) as shown:
        assert not is_wider_than_the_screen(shown)
        assert shown.complaints == []


# The measure of Fig. 8


def test_contours_of_a_step():
    image = torch.zeros(1, 3, 6, 8)
    image[..., 4:] = 1
    strength = contour_strength(image)
    assert strength.shape == (1, 6, 8)
    assert torch.equal(strength[0, 0], torch.tensor([0, 0, 0, 0.5, 0.5, 0, 0, 0]))
    assert torch.equal(strength, contour_strength(1 - image))
    turned = contour_strength(image.transpose(2, 3))
    assert torch.equal(turned, strength.transpose(1, 2))


def test_contour_correlation_of_planted_maps():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 8, 8, generator=generator)
    contours = contour_strength(images)[:, None]
    assert contour_correlation(2 * contours.expand(-1, 4, -1, -1) + 1, images) == pytest.approx(torch.ones(5).numpy())
    assert contour_correlation(1 - contours, images) == pytest.approx(-torch.ones(5).numpy())
    noise = torch.rand(200, 1, 8, 8, generator=generator)
    r = contour_correlation(noise, torch.rand(200, 3, 8, 8, generator=generator))
    assert abs(float(r.mean())) < 4 / (200 * 64) ** 0.5
    assert bool(contour_correlation(torch.ones(5, 1, 8, 8), images).isnan().all())
    with pytest.raises(ValueError, match=r"maps must be \[B, n_E, H, W\] of the same images"):
        contour_correlation(contours[:2], images)
    with pytest.raises(ValueError, match=r"images must be \[B, C, H, W\]"):
        contour_strength(images[0])
