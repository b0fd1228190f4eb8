"""What a prompt shows of runs, data and recordings: a line, not the numbers in them."""

from pathlib import Path

import torch

import eisnn
from eisnn import analysis
from eisnn.interop import load_trained
from eisnn.report.opened import open_run
from eisnn.train import Run


def test_reprs_are_a_line_and_say_what_it_is() -> None:
    trained, model = load_trained("demo-plus"), eisnn.load("demo-plus")
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), analysis.record(model, what=["spikes", "I_E"]) as recording:
        model(images)
    doses = analysis.dose_response(model, images, torch.arange(4), "subtractive", [0.5, 1])
    shown = {
        "Trained('": trained,
        "Dataset('cifar10-sample', 10 classes, train=Images(5000 of [3, 32, 32]), ": trained.dataset,
        "About('demo-plus': convnet3, circuit ei, cifar10-sample, accuracy 58.80 %)": model.about,  # type: ignore[dict-item]
        "Recording(layers.0: spikes/I_E, layers.1: ": recording,
        "DoseResponse('subtractive', doses=[0.5, 1.0], seeds=[0])": doses,
        "Synapses(weight_ee=[32, 3, 3, 3], weight_ie=[8, 3, 3, 3], ": analysis.synapses(model)["layers.0"],
        "Run('runs/one')": Run(Path("runs/one")),
        "Opened('demo-plus': convnet3, E-I circuit, exact balance, 2 test images of ": open_run("demo-plus", images=2),
    }
    for start, value in shown.items():
        assert repr(value).startswith(start), repr(value)
        assert len(repr(value)) < 300
