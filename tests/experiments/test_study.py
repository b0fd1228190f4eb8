"""The experiments: what is run, what is told of it, and that nothing is run twice or mixed up."""

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import depth
import directions
import distributions
import figure5
import figure6
import figure8
import gap
import pytest
import screening
import study
import table1
import table2
import table3
import table4
import telling
import torch
from circuits import rng
from PIL import Image
from telling import Row
from torch import nn
from train_runs import tiny

import eisnn
from eisnn.data import Augmentation
from eisnn.methods import ABLATIONS
from eisnn.methods.bn import BNLayer
from eisnn.models import list_models
from eisnn.nn import LIF, PLUS, EILayer
from eisnn.train import Interrupted, Run, TrainConfig, initial_model

COMMITTED = Path(study.__file__).parent / "results"


def arguments(folder: Path, *words: str) -> argparse.Namespace:
    return study.parser("doc").parse_args([*words, "--output", str(folder / "told"), "--runs", str(folder / "runs")])


def result(accuracy: list[float], seed: int = 0, lost: str | None = None, test_images: int = 1000) -> dict[str, Any]:
    return {"accuracy": accuracy, "seed": seed, "lost": lost, "test_images": test_images, "classes": 10}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (result([15, 30]), "learned"),
        (result([15, 30, 10, 9.5]), "collapsed in epoch 3"),
        (result([10, 9, 30]), "learned"),
        (result([10, 12, 10]), "never learned"),  # 1,000 images: 10 % and three standard errors are 12.8 %
        (result([10, 12, 10], test_images=10_000), "collapsed in epoch 3"),
        (result([15, 30], lost="the loss is not finite at epoch 3, step 4"), "not finite in epoch 3"),
        (result([], lost="the loss is not finite at epoch 1, step 1"), "not finite in epoch 1"),
        (result([], lost="E-I Init: the input of readout is zero everywhere"), "silent from the start"),
    ],
)
def test_what_became_of_a_run(found, told):
    assert telling.outcome(found) == told


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (result([15, 30, 10]), "collapsed in epoch 9"),
        (result([15, 30, 10, 9]) | {"train_loss": [2.0] * 14}, "collapsed in epoch 9"),
        (
            result([15], lost="the loss is not finite at epoch 6, step 4") | {"train_loss": [2.0] * 5},
            "not finite in epoch 6",
        ),
    ],
)
def test_of_a_run_that_is_evaluated_every_fourth_epoch(found, told):
    found["config"] = {"evaluate_epochs": 4}
    found.setdefault("train_loss", [2.0] * 12)
    assert telling.outcome(found) == told
    assert telling.evaluated(found) == [4, 8, 12, 14][: len(found["accuracy"])]


def test_a_lost_run_counts_as_guessing():
    assert telling.final(result([15, 30])) == 30
    assert telling.final(result([15, 30], lost="not finite")) == 10
    assert telling.final(result([], lost="not finite")) == 10
    assert telling.final(result([], lost="not finite") | {"classes": 100}) == 1


def test_difference_is_paired_by_seed_with_student_s_interval():
    """By hand: gaps 2, 4, 9; mean 5, standard deviation sqrt(13), half width 4.303 sqrt(13 / 3)."""
    ours = [result([accuracy], seed) for seed, accuracy in enumerate((12, 24, 39))]
    others = [result([accuracy], seed) for seed, accuracy in enumerate((10, 20, 30, 40))]
    gap = telling.difference(ours, others[::-1])
    assert gap is not None
    assert gap["mean"] == pytest.approx(5)
    assert gap["high"] - 5 == pytest.approx(5 - gap["low"]) == pytest.approx(8.957, abs=1e-3)
    assert telling.difference(ours[:1], others) is None


def test_the_table_shows_what_was_lost_and_what_was_not_run():
    row = Row("no scaling", TrainConfig(), "collapsed", "as it says")
    runs = [result([30.0, 10.0], 0), result([20.0, 22.0], 1)]
    whole = [result([40.0, 50.0], 0), result([40.0, 54.0], 1)]
    summary = telling.summarize(row, runs, whole)
    assert (summary["n"], summary["accuracy"], summary["mean"]) == (2, [10.0, 22.0], 16.0)
    text = telling.markdown([summary, telling.summarize(Row("SRI", None, "87.62", "no equations"), [], whole)])
    first, second = text.splitlines()[2:]
    assert first.startswith("| no scaling | collapsed | 16.0 ± 8.5 | 2 | 26.0 | -36.0 (-86.8 to +14.8) |")
    assert first.endswith("| collapsed in epoch 2; learned (as it says) |")
    assert second == "| SRI | 87.62 |  |  |  |  | not run (no equations) |"


def test_a_study_runs_every_row_once_and_tells_of_it(images, tmp_path, monkeypatch):
    rows = [
        Row("E-I", tiny(images)),
        Row("batch norm", tiny(images, circuit="bn")),
        Row("SRI", None),
    ]
    args = arguments(tmp_path, "--seeds", "2", "--epochs", "1", "--data-path", str(images))
    study.study(rows, args)
    told = json.loads((tmp_path / "told" / "told.json").read_text())
    assert [row["n"] for row in told["rows"]] == [2, 2, 0]
    assert told["rows"][1]["difference"]["low"] <= told["rows"][1]["difference"]["high"]
    assert (tmp_path / "told" / "told.md").read_text().count("\n") == 5
    assert (tmp_path / "told" / "told.png").stat().st_size > 1000
    one = json.loads((tmp_path / "told" / "batch_norm-1.json").read_text())
    assert one["config"]["seed"] == 1
    assert "data_path" not in one["config"]
    assert {"command", "machine", "versions"} <= one.keys()
    assert (one["test_images"], one["classes"]) == (24, 3)
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.setattr(study, "fit", lambda *_: pytest.fail("it was run again"))
    study.study(rows, args)


def test_a_run_of_another_study_is_not_repeated(images, tmp_path, monkeypatch):
    row, words = Row("E-I", tiny(images)), ("--epochs", "1", "--data-path", str(images))
    args = arguments(tmp_path, *words)
    study.study([row], args)
    other = study.parser("doc").parse_args([*words, "--output", str(tmp_path / "other"), "--runs", str(tmp_path)])
    (tmp_path / "told" / "notes-0.json").write_text("[]")
    trained = []
    monkeypatch.setattr(
        study, "fit", lambda config, folder: (trained.append(config.optimization.lr), pytest.fail("run"))[0]
    )
    study.study([Row("the same by another name", tiny(images))], other)
    assert trained == []
    file = tmp_path / "other" / "the_same_by_another_name-0.json"
    first = json.loads((tmp_path / "told" / "E-I-0.json").read_text())
    assert json.loads(file.read_text()) == first | {"row": "the same by another name"}
    with pytest.raises(pytest.fail.Exception):  # another rate is another run
        study.study([Row("another", tiny(images, lr=0.01))], other)
    assert trained == [0.01]


def test_a_run_that_was_stopped_is_continued(images, tmp_path, monkeypatch):
    args = arguments(tmp_path, "--epochs", "2", "--data-path", str(images))
    row = Row("E-I", tiny(images))
    whole = study.train("whole", study.budgeted(row.config, args), 0, args)
    real = study.fit

    def stopped(config: TrainConfig, folder: Path) -> None:
        monkeypatch.setattr(study, "fit", real)
        with monkeypatch.context() as patch:
            patch.setattr("eisnn.train.loop.Loop.train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            real(config, folder)

    monkeypatch.setattr(study, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        study.study([row], args)
    assert Run(study.run_folder("E-I", 0, args)).last.exists()
    monkeypatch.setattr(study, "fit", lambda *_: pytest.fail("it was started over"))
    study.study([row], args)
    assert json.loads((args.output / "E-I-0.json").read_text())["accuracy"] == whole["accuracy"]


def test_a_result_from_before_a_field_was_there_counts_with_its_default(images, tmp_path, monkeypatch):
    rows, args = [Row("E-I", tiny(images))], arguments(tmp_path, "--epochs", "1", "--data-path", str(images))
    study.study(rows, args)
    file = args.output / "E-I-0.json"
    stored = json.loads(file.read_text())
    del stored["config"]["ablation"]
    file.write_text(json.dumps(stored))
    monkeypatch.setattr(study, "fit", lambda *_: pytest.fail("it was run again"))
    study.study(rows, args)
    assert json.loads(file.read_text()) == stored
    assert json.loads((args.output / "told.json").read_text())["rows"][0]["n"] == 1


def test_results_of_another_budget_are_not_mixed_in(images, tmp_path):
    rows = [Row("E-I", tiny(images))]
    study.study(rows, arguments(tmp_path, "--epochs", "1", "--data-path", str(images)))
    with pytest.raises(SystemExit, match=r"of another run: epochs 1 instead of 2.*name other folders"):
        study.study(rows, arguments(tmp_path, "--epochs", "2", "--data-path", str(images)))
    with pytest.raises(SystemExit, match="no row is called BN; there are: E-I"):
        study.study(rows, arguments(tmp_path, "--only", "BN"))


def test_what_is_there_is_looked_at_before_anything_is_trained(images, tmp_path, monkeypatch):
    rows = [Row("E-I", tiny(images)), Row("batch norm", tiny(images, circuit="bn"))]
    study.study(rows, arguments(tmp_path, "--epochs", "1", "--data-path", str(images), "--only", "batch norm"))
    monkeypatch.setattr(study, "fit", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(SystemExit, match=r"batch_norm-0.json is of another run: epochs 1 instead of 2"):
        study.study(rows, arguments(tmp_path, "--epochs", "2", "--data-path", str(images)))


def test_a_damaged_result_is_named(images, tmp_path):
    rows, args = [Row("E-I", tiny(images))], arguments(tmp_path, "--epochs", "1", "--data-path", str(images))
    study.study(rows, args)
    file = args.output / "E-I-0.json"
    whole = json.loads(file.read_text())
    file.write_text(file.read_text()[:100])
    with pytest.raises(SystemExit, match=r"E-I-0.json is damaged .* remove it"):
        study.study(rows, args)
    file.unlink()
    study.study(rows, args)
    assert json.loads(file.read_text())["accuracy"] == whole["accuracy"]


def test_the_command_of_a_result_names_no_path_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/me/experiments/gap.py", "--data-path", "/data/cifar10", "--output", "here"])
    assert study.provenance()["command"] == "python experiments/gap.py --data-path cifar10 --output here"


def test_committed_results_can_be_continued():
    """Their configurations are still ones of this version: fields may be missing, none unknown; and they lie where
    their row is looked for."""
    results = [(file, json.loads(file.read_text())) for file in COMMITTED.glob("*/*-[0-9].json")]
    assert len(results) > 200
    for file, result in results:
        assert study.described(TrainConfig.model_validate(result["config"]))["seed"] == result["seed"]
        assert file.name == f"{study.slug(result['row'])}-{result['seed']}.json"
        summary = telling.summarize(Row(result["row"], None), [result], [])
        assert summary["mean"] == telling.final(result)
        assert not any(word.startswith("/") for word in result.get("command", "").split()), file  # a machine's path


@pytest.mark.parametrize(
    ("folder", "rows"),
    [
        ("gap", {row.name for row in gap.rows()}),
        ("screening", set(screening.variants())),
        ("screening_report", set(screening.variants())),
        ("depth", {f"{network}, {method}" for network in list_models() for method in depth.METHODS}),
    ],
)
def test_a_committed_result_is_of_a_row_that_its_script_has(folder, rows):
    found = {json.loads(file.read_text())["row"] for file in (COMMITTED / folder).glob("*-[0-9].json")}
    assert {name.rpartition(", ")[0] if folder == "depth" else name for name in found} <= rows
    assert found


def test_what_is_told_of_the_screening():
    """Numbers of docs/results.md, from the committed files."""
    best = screening.best_rates(COMMITTED / "screening")
    assert best["batch norm, orthogonal"] == "batch norm, orthogonal, 0.05"
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in best.values()}
    for file in (COMMITTED / "screening_report").glob("*-[0-9].json"):
        results.setdefault((found := json.loads(file.read_text()))["row"], []).append(found)
    told = screening.recovered(results, best)
    assert told.splitlines()[1] == "part of the gap to batch norm, orthogonal: 0.81 (0.71 to 0.91)"
    assert screening.recovered({name: [] for name in results}, best) == ""
    with pytest.raises(SystemExit, match=r"run the choice first; missing in .*depth: paper, 0.002; paper, 0.005"):
        screening.best_rates(COMMITTED / "depth")


def test_depth_tells_of_networks_at_budgets_of_their_own():
    rows = depth.table(COMMITTED / "depth").splitlines()
    assert "| resnet82, plus, 0.005 | 4 | 2.31 → 1.92 | 30.5 | 1 |" in rows
    words = argparse.Namespace(train=["stack20"], methods=["paper", "plus"], image_size=16, rate=None)
    configs = depth.rows(words)
    assert list(configs) == ["stack20, paper, 0.003", "stack20, plus, 0.02"]
    assert configs["stack20, plus, 0.02"].network.model == "stack20"


def test_layers_of_a_row_of_its_own_are_in_place_while_it_is_trained_and_its_result_is_not_shared(images, tmp_path):
    """Layers that spike where they would not: what is trained is not what the configuration says."""

    def inverted(self: Any, *args: Any) -> Any:
        spikes, state = ordinary(self, *args)
        return 1 - spikes, state

    ordinary, config = EILayer.respond, tiny(images)
    words = ("--epochs", "1", "--data-path", str(images))
    row = Row("inverted", config, within=lambda: patch.object(EILayer, "respond", inverted))
    args = arguments(tmp_path, *words)
    study.study([row], args)
    found = json.loads((args.output / "inverted-0.json").read_text())
    other = study.parser("doc").parse_args([*words, "--output", str(tmp_path / "other"), "--runs", str(tmp_path)])
    study.study([Row("as it is", config)], other)
    as_it_is = json.loads((tmp_path / "other" / "as_it_is-0.json").read_text())
    assert (found["within"], as_it_is["within"]) == (True, False)
    assert found["config"] == as_it_is["config"]
    assert found["train_loss"] != as_it_is["train_loss"]


def test_steps_of_the_gap_change_what_they_name():
    """Weights centred and of one norm; currents centred over the batch."""
    weights = gap.kernel(BNLayer(nn.Conv2d(16, 4, 3), nn.Identity(), LIF()), frozenset({"centred"}))
    assert weights.sum(1).abs().max() < 1e-6
    assert weights.flatten(1).norm(dim=1).tolist() == pytest.approx([gap.NORM] * 4)
    assert sum(row.within is not None for row in gap.rows()) == 10


def test_circuits_that_lack_something_are_else_those_of_plus():
    """Lacking nothing they answer the same; each lack changes the answer."""
    model, x = (
        eisnn.create_model("convnet3", width=0.25, circuit_options=PLUS).double(),
        torch.rand(8, 3, 16, 16).double(),
    )
    eisnn.ei_init_(model, x, generator=rng(0))
    answers = [model(x)]
    for lack in ("nothing", "no norm", "no balance", "constant"):
        respond = gap.lacking(frozenset({lack}), EILayer.respond)
        with patch.object(EILayer, "respond", respond):
            answers.append(model(x))
    torch.testing.assert_close(answers[1], answers[0])
    assert all((answer - answers[0]).abs().max() > 1e-3 for answer in answers[2:])


def test_constant_division_begins_after_e_i_init():
    x, started = torch.rand(8, 3, 16, 16, generator=rng(1), dtype=torch.float64), []
    for respond in (EILayer.respond, gap.lacking(frozenset({"constant"}), EILayer.respond)):
        with patch.object(EILayer, "respond", respond):
            model = eisnn.create_model("convnet3", width=0.25, circuit_options=PLUS).double().eval()
            eisnn.ei_init_(model, x, generator=rng(0))
        started.append(model.state_dict())
    torch.testing.assert_close(started[1], started[0])


@pytest.mark.parametrize("row", [row for row in gap.rows() if row.within], ids=lambda row: row.name)
def test_layers_of_every_step_of_the_gap_train(row, images):
    config = tiny(images, circuit=row.config.network.circuit, circuit_options=row.config.network.circuit_options)
    model = initial_model(config).train()
    with row.within():
        changed = model(torch.rand(4, 3, 8, 8, generator=rng(0)))
        changed.sum().backward()
    assert changed.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not torch.equal(changed, model(torch.rand(4, 3, 8, 8, generator=rng(0))))


def test_the_average_of_the_weights_is_told_beside_them(images, tmp_path):
    args = arguments(tmp_path, "--epochs", "1", "--data-path", str(images))
    study.study([Row("average", tiny(images, average=0.9))], args)
    found = json.loads((args.output / "average-0.json").read_text())
    assert f"averaged weights {found['average_accuracy'][-1]:.1f} %" in (args.output / "told.md").read_text()


def test_directions_are_measured_at_the_start_and_after_each_epoch(images, monkeypatch):
    monkeypatch.setattr(directions, "recipe", lambda name: tiny(images))
    history = directions.follow("demo", 2, 0)
    assert len(history) == 3
    assert [len(rows) for rows in history] == [3, 3, 3]
    assert all(0 <= row["common_ee"] <= 1 for rows in history for row in rows)
    assert history[0] != history[1] != history[2]


def test_a_row_that_cannot_be_run_says_why(tmp_path):
    rows = [Row("E-I", TrainConfig()), Row("SRI", None, note="no equations")]
    with pytest.raises(SystemExit, match="cannot be run: SRI: no equations"):
        study.study(rows, arguments(tmp_path, "--only", "SRI"))


def test_a_table_of_nothing_replaces_no_summary(tmp_path):
    args = arguments(tmp_path, "--table")
    args.output.mkdir()
    (args.output / "told.md").write_text("another table")
    study.study([Row("E-I", TrainConfig())], args)
    assert (args.output / "told.md").read_text() == "another table"


@pytest.mark.parametrize("option", ["--epochs", "--seeds", "--subset", "--batch-size"])
def test_a_budget_of_nothing_is_refused(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        arguments(tmp_path, option, "0")
    assert f"argument {option}: it must be at least 1, got 0" in capsys.readouterr().err


def test_a_script_says_in_one_line_what_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["table2.py"])
    for error, code in ((ValueError("width must be > 0"), 2), (Interrupted("the same command continues"), 130)):

        def fail(error=error):
            raise error

        with pytest.raises(SystemExit) as left:
            study.run_script(fail)
        assert (left.value.code, capsys.readouterr().err) == (code, f"eisnn: {error}\n")


def test_a_run_whose_loss_is_not_finite_is_a_result(images, tmp_path, monkeypatch):
    args = arguments(tmp_path, "--data-path", str(images))
    monkeypatch.setattr("eisnn.train.loss.cross_entropy", lambda logits, *_: logits.sum() * float("inf"))
    found = study.train("E-I", tiny(images), 0, args)
    assert found["lost"] == "the loss is not finite at epoch 1, step 1"
    assert telling.outcome(found) == "not finite in epoch 1"


def test_a_run_that_cannot_be_initialised_is_a_result(images, tmp_path, monkeypatch):
    black = tmp_path / "black"
    for file in images.rglob("*.png"):
        (black / file.relative_to(images)).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(black / file.relative_to(images))
    args = arguments(tmp_path, "--data-path", str(black))
    found = study.train("E-I", tiny(black, image_size=8, augmentation=Augmentation()), 0, args)
    assert telling.outcome(found) == "silent from the start"
    assert found["accuracy"] == found["train_loss"] == []
    monkeypatch.setattr(study, "fit", lambda *_: {}["a mistake"])
    with pytest.raises(KeyError, match="a mistake"):
        study.train("another", tiny(images), 0, args)


def test_the_budget_changes_what_it_names():
    words = ["--epochs", "20", "--subset", "500", "--width", "0.5", "--batch-size", "32", "--lr", "0.01"]
    args = study.parser("doc").parse_args(words)
    whole, twin = (
        study.budgeted(row.config, args).fields() for row in table1.rows("cifar10", ("vgg8",))[:2] if row.config
    )
    changed = {"epochs": 20, "warmup_epochs": 2, "train_images": 500, "width": 0.5, "dataset": "cifar10-sample"}
    assert whole.items() >= (changed | {"batch_size": 32, "lr": 0.01}).items()
    assert twin["lr"] != 0.01


@pytest.mark.parametrize(
    "rows", [table1.rows("cifar10", table1.NETWORKS["cifar10"]), table2.rows(), table3.rows(), figure6.rows()],
    ids=["table 1", "table 2", "table 3", "figure 6"],
)  # fmt: skip
def test_rows_have_names_of_their_own_and_are_compared_with_one_that_is_there(rows):
    names = [row.name for row in rows]
    assert len(set(map(study.slug, names))) == len(names)
    assert all(row.versus in (*names, "") for row in rows)
    assert all(row.config is not None or row.note for row in rows)


def test_table_2_has_every_ablation():
    ablations = {row.config.network.ablation for table in (table2, table3) for row in table.rows() if row.config}
    assert ablations == {*ABLATIONS, None}


def test_moments_tell_shapes_apart():
    """Sarle's coefficient: 1/3 for a Gaussian, 5/9 for a uniform distribution, 1 for two values alike."""
    normal = torch.randn(200_000, generator=rng(0))
    assert distributions.moments(normal)["bimodality"] == pytest.approx(1 / 3, abs=0.01)
    assert distributions.moments(torch.rand(200_000, generator=rng(0)))["bimodality"] == pytest.approx(5 / 9, abs=0.01)
    two = distributions.moments(torch.tensor([0.0, 2.0]).repeat(1000))
    assert two["bimodality"] == pytest.approx(1, abs=0.01)
    assert (two["mean"], two["skewness"]) == pytest.approx((1, 0), abs=1e-6)


def test_feature_maps_on_contours_and_dense_ones_are_told_apart():
    """A map that is the contrast itself goes with it; noise does not, and is spread over more positions."""
    x = torch.zeros(3, 3, 16, 16)
    x[..., 6:] = 1  # one vertical edge
    edges = figure8.contrast(x)
    assert edges.nonzero()[:, 3].unique().tolist() == [5, 6]
    on_contours = figure8.measures(edges.expand(-1, 2, -1, -1) - edges.mean(), x)
    dense = figure8.measures(torch.randn(3, 2, 16, 16, generator=rng(0)), x)
    assert on_contours["contrast"] > 0.9 > 0.3 > abs(dense["contrast"])
    assert on_contours["half"] < dense["half"] < 0.5
    assert figure8.measures(torch.ones(3, 2, 16, 16), x)["alive"] == 0


def test_table_4_reads_what_the_bench_wrote():
    stored = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "cpu_vgg8_b32.json").read_text())
    head, _, row = table4.table({"vgg8": stored}).splitlines()
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert len(cells) == head.count("|") - 1
    assert cells[0] == "vgg8"
    assert float(cells[2]) == pytest.approx(stored["ei_over_bn"]["step_seconds"], abs=0.01)
    assert (cells[3], cells[6]) == ("2.48", "1.12")  # 18.1 / 7.3 s, 2684 / 2394 MB


def test_the_first_gradients_of_a_run(images):
    norms, relative, fan_in = figure5.first_gradients(tiny(images, ablation="no-gradient-scaling"))
    scaled, _, _ = figure5.first_gradients(tiny(images))
    assert fan_in == {"layers.0": 27, "layers.1": 72, "layers.2": 144}
    for layer, d in fan_in.items():
        assert norms[layer]["weight_ei"] == pytest.approx(d * scaled[layer]["weight_ei"], rel=1e-4)
        assert norms[layer]["weight_ee"] == pytest.approx(scaled[layer]["weight_ee"], rel=1e-4)
        assert "bias" not in relative[layer]  # it starts at 0
    assert figure5.table(norms, relative, fan_in).count("\n") == 4
