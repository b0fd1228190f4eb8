"""The configuration of a run: published values, validation, JSON, and the learning rate."""

import json
import re
from math import cos, inf, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import eisnn
from eisnn.cortex import CorticalOptions
from eisnn.data import Augmentation
from eisnn.data.config import load_data
from eisnn.data.events.augment import EventAugmentation
from eisnn.methods import ABLATIONS
from eisnn.methods.ablations import AblatedConv2d, AblatedReadout
from eisnn.models.config import build_model
from eisnn.nn import PAPER, PLUS
from eisnn.train import RunError, TrainConfig, recipe, recipes
from eisnn.train.build import new_network
from eisnn.train.optim import OptimizationConfig, learning_rate, make_optimizer
from eisnn.train.run import Run

# Of the paper, retyped by hand: peak rate, start of the warm-up, its epochs.
PUBLISHED = {
    "cifar10-vgg8": (0.002, 1e-7, 10),
    "cifar10-vgg11": (0.002, 1e-7, 10),
    "cifar10-vgg16": (0.001, 1e-7, 30),
    "cifar10-vgg19": (0.001, 1e-7, 30),
    "cifar10-resnet18": (0.001, 1e-7, 30),
    "cifar100-vgg16": (0.001, 1e-7, 30),
    "cifar100-vgg19": (0.001, 1e-7, 30),
    "tiny-imagenet-resnet18": (0.003, 0.001, 10),
}


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_exact_in_json(name: str) -> None:
    config = recipe(name)
    again = TrainConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert TrainConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_awkward_floats_survive_json() -> None:
    config = TrainConfig(lr=0.1 + 0.2, lr_start=5e-324, warmup_epochs=1 / 3, checkpoint_seconds=1e300)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


def test_options_of_other_data_sets_and_circuits_are_not_written() -> None:
    """So that their defaults may change."""
    image, events, trials = (recipe(name).model_dump() for name in ("demo", "nmnist-demo", "perceptual-decision"))
    assert image["data"].keys() & {"frames", "trials", "split_seed"} == set()
    assert events["data"].keys() & {"frames", "trials", "split_seed"} == {"frames"}
    assert trials["data"].keys() & {"frames", "trials", "split_seed"} == {"trials"}
    assert recipe("cifar10-dvs-vgg8").model_dump()["data"].keys() & {"split_seed"} == {"split_seed"}
    assert "cortex" not in image["network"]
    assert "cortex" in trials["network"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str) -> None:
    config = recipe(name)
    network, data, optimization = config.network, config.data, config.optimization
    dataset, model = name.rsplit("-", 1)
    assert (data.dataset, network.model, network.circuit, network.width) == (dataset, model, "ei", 1.0)
    assert (optimization.lr, optimization.lr_start, optimization.warmup_epochs) == PUBLISHED[name]
    assert (optimization.epochs, data.batch_size, network.time_steps) == (300, 128, 4)
    assert (optimization.momentum, optimization.weight_decay, network.tau, data.image_size) == (0.9, 5e-4, 2.0, 32)
    assert data.hold_out == 0  # the published evaluation split
    augmentation = data.augmentation
    assert augmentation.flip
    assert augmentation.cutout == "square"
    if dataset == "tiny-imagenet":
        assert augmentation.resized_crop == (0.08, 1.0)
        assert augmentation.color_jitter == (0.4, 0.4, 0.4, 0.1)
        assert augmentation.crop_padding == 0
    else:
        assert augmentation.crop_padding == 4
        assert augmentation.resized_crop is None


PAPERS = [
    name
    for name, config in recipes().items()
    if config.network.circuit == "ei" and not name.endswith(("-plus", "-published"))
]


@pytest.mark.parametrize("name", PAPERS)
def test_the_twin_differs_in_circuit_rate_and_decay_only(name: str) -> None:
    changed = {"circuit": "bn", "lr": 0.1, "weight_decay": 1e-4}
    assert recipe(f"{name}-bn").fields() == recipe(name).fields() | changed


@pytest.mark.parametrize("name", [name for name in recipes() if name.endswith("-published")])
def test_the_recipes_to_the_letter_differ_in_what_the_authors_program_has(name: str) -> None:
    ours = recipe(name.removesuffix("-published"))
    changed: dict[str, object] = {"first_step": "published", "init_batch": "separate"}
    if "dvs" not in name:
        changed["augmentation"] = ours.data.augmentation.model_copy(update={"cutout": "published"})
    if "-bn-" in name:
        changed |= {"warmup_epochs": 0.0, "weights": "fan-out" if "resnet" in name else "torch"}
    assert recipe(name).fields() == ours.fields() | changed


def test_the_static_image_recipes_are_all_there() -> None:
    static = {name for name in PAPERS if name.startswith(("cifar", "tiny")) and "dvs" not in name}
    assert static == {*PUBLISHED, "cifar10-spikformer", "cifar10-qkformer"}


@pytest.mark.parametrize(
    ("name", "steps", "area", "flip"),
    [
        ("cifar10-dvs-vgg8", 10, (0.7, 1.0), True),
        ("cifar10-dvs-vgg11", 10, (0.7, 1.0), True),
        ("cifar10-dvs-resnet18", 10, (0.7, 1.0), True),
        ("dvs-gesture-vgg8", 16, (0.5, 1.0), False),  # mirrored, it would be another gesture
    ],
)
def test_published_values_of_events(name: str, steps: int, area: tuple[float, float], flip: bool) -> None:
    config = recipe(name)
    network, data, optimization = config.network, config.data, config.optimization
    dataset, model = name.rsplit("-", 1)
    assert (data.dataset, network.model, network.time_steps, network.width) == (dataset, model, steps, 1.0)
    assert (data.image_size, data.batch_size, data.frames.bins, data.split_seed) == (48, 32, "count", None)
    assert (optimization.lr, optimization.lr_start, optimization.warmup_epochs) == (0.001, 1e-7, 10)
    assert (optimization.epochs, optimization.momentum, optimization.weight_decay) == (300, 0.9, 5e-4)
    assert data.augmentation.resized_crop == area
    assert data.augmentation.flip is flip
    assert (data.augmentation.temporal_deletion > 0) is (dataset == "dvs-gesture")


@pytest.mark.parametrize("name", PAPERS)
def test_plus_differs_in_options_and_steps_only(name: str) -> None:
    changed = {"optimizer": "orthogonal", "lr": 0.02, "decay": "feedforward"}
    changed["circuit_options"] = PLUS
    if "former" in name:
        changed["attention"] = "divisive"
    assert recipe(f"{name}-plus").fields() == recipe(name).fields() | changed
    assert recipe(f"{name}-plus").network.circuit_options.conserved
    assert recipe(name).network.circuit_options == PAPER


def test_options_of_the_circuit_are_not_for_the_twin() -> None:
    with pytest.raises(ValueError, match="circuit_options belong to circuit ei"):
        recipe("demo-plus").changed(circuit="bn")
    with pytest.raises(ValueError, match="ablation, ei_ratio belong to circuit ei, got circuit 'bn'"):
        recipe("demo-bn").changed(ablation="floor", ei_ratio=2)
    with pytest.raises(ValueError, match="ablation is 'floor', of the paper's circuit, but circuit_options depart"):
        recipe("demo-plus").changed(ablation="floor")


def test_the_cortical_recipe_differs_in_circuit_and_time_only() -> None:
    published, changed = recipe("cifar10-vgg8"), recipe("cifar10-vgg8-cortex")
    assert changed.changed(circuit="ei", cortex=CorticalOptions(), time_steps=4) == published
    model = build_model(changed.changed(width=0.25).network, num_classes=10, in_channels=3, image_size=32)
    layer = model.layers[1]
    assert layer.recurrent_ee.shape == (32, 32, 3, 3)
    assert layer.recurrent_se.shape == (4, 32, 7, 7)


def test_options_of_cortical_circuits_are_for_them_alone() -> None:
    with pytest.raises(ValidationError, match="cortex has the options of circuit cortex; got circuit 'ei'"):
        recipe("demo").changed(cortex={"recurrence": 0.2})
    with pytest.raises(ValidationError, match=r"tau_pv must be 0 .* or at least dt / 10 = 1 ms.* got 0\.5"):
        recipe("demo-cortex").changed(cortex={"tau_pv": 0.5})
    fields = json.loads(recipe("demo-cortex").changed(ei_ratio=2).model_dump_json())
    assert TrainConfig.model_validate(fields).network.cortex == CorticalOptions(recurrence=0.1, sst=0.1)


def test_ablation_and_ratio_reach_the_network() -> None:
    config = recipe("demo").changed(ablation="epsilon-1e-3", ei_ratio=2)
    model = new_network(config, load_data(config.data, config.network.time_steps))
    ablations = {m.ablation for m in model.modules() if isinstance(m, AblatedConv2d | AblatedReadout)}
    assert ablations == {ABLATIONS["epsilon-1e-3"]}
    assert {(m.n_e, m.n_i) for m in model.modules() if isinstance(m, AblatedConv2d)} == {(32, 16), (64, 32), (128, 64)}


def test_decay_spares_all_but_feedforward_weights() -> None:
    model = eisnn.create_model("convnet3", circuit_options=recipe("demo-plus").network.circuit_options)
    assert _decaying(model) == ({"weight_ee", "weight_ie"}, {"weight_ei", "gain_i", "gain_e", "bias", "sigma"})


def test_decay_spares_the_weights_within_a_cortical_layer() -> None:
    options = CorticalOptions(sst=0.4, vip=0.5, sst_pv=0.4)
    network = eisnn.create_model("convnet3", circuit="cortex", circuit_options=options)
    decays, spared = _decaying(network)
    assert decays == {"weight_ee", "weight_pe", "weight_ie"}  # that last one is of the readout
    assert spared >= {"weight_ep", "weight_es", "weight_ps", "recurrent_ee", "recurrent_se", "gain_p", "bias"}


def _decaying(model: torch.nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters that decay by the recipes `-plus`, and of those that do not."""
    names = {id(p): name.split(".")[-1] for name, p in model.named_parameters()}
    kinds: dict[bool, set[str]] = {True: set(), False: set()}
    for group in make_optimizer(model, recipe("demo-plus").optimization).param_groups:
        kinds[group["weight_decay"] > 0] |= {names[id(p)] for p in group["params"]}
    return kinds[True], kinds[False]


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    said = r"unknown recipe 'cifar10-vgg7'; did you mean 'cifar10-vgg\d+'\? known: cifar10-vgg8 \(-bn, "
    with pytest.raises(ValueError, match=said):
        recipe("cifar10-vgg7")


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("model", "vgg7", "known: .*vgg8"),
        ("circuit", "xy", "known: backei, bn, .*dann, .*ei"),
        ("ablation", "epsilon", "known: .*epsilon-1e-2"),
        ("ei_ratio", 0, "greater than or equal to 1"),
        ("surrogate", "step", "known: .*sigmoid"),
        ("dataset", "mnist", "known: .*cifar10"),
        ("lr", -0.1, "greater than 0"),
        ("lr", 0, "greater than 0"),
        ("lr", inf, "finite"),
        ("lr", float("nan"), "greater than 0|finite"),
        ("lr", "fast", "valid number"),
        ("lr_start", -1e-7, "greater than or equal to 0"),
        ("weight_decay", -1, "greater than or equal to 0"),
        ("momentum", 1.0, "less than 1"),
        ("epochs", 0, "greater than or equal to 1"),
        ("batch_size", 0, "greater than or equal to 1"),
        ("batch_size", 12.5, "valid integer"),
        ("time_steps", 0, "greater than or equal to 1"),
        ("tau", 0.5, "greater than or equal to 1"),
        ("width", 0, "greater than 0"),
        ("hold_out", 1.0, "less than 1"),
        ("data_on_device", "host", "'auto'|valid boolean"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**64, "less than 18446744073709551616"),
        ("precision", "16", "'32', 'bf16' or '64'"),
        ("accelerator", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("devices", 0, "greater than or equal to 1"),
        ("checkpoint_seconds", -1, "greater than or equal to 0"),
        ("lr_start", 0.002, "more than lr = 0.001"),
        ("warmup_epochs", 301, "more than epochs = 300"),
        ("learning_rate", 0.1, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_value_is_named_with_its_field_and_what_would_be_right(field: str, value: object, right: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TrainConfig(**{field: value})  # type: ignore[arg-type]
    message = str(caught.value)
    assert field in message
    assert str(value) in message
    assert re.search(right, message), message


@pytest.mark.parametrize(
    ("field", "right"), [("weight_decays", "did you mean 'weight_decay'"), ("qqq", "`eisnn train RECIPE --help` names")]
)
def test_a_field_that_there_is_not(field: str, right: str) -> None:
    with pytest.raises(ValueError, match=f"a training run has no field '{field}'; {right}"):
        recipe("demo").changed(**{field: 0.1})


def test_what_trains_is_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"fit takes a configuration and a folder: .* got 'demo'"):
        eisnn.fit("demo", tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_the_largest_seed_is_one_that_torch_takes() -> None:
    seed = TrainConfig(seed=2**64 - 1).seed
    assert torch.Generator().manual_seed(seed).initial_seed() == seed


def test_a_batch_must_hold_an_image_for_each_process() -> None:
    with pytest.raises(ValidationError, match="batch_size is 3, less than one image for each of 4 processes"):
        TrainConfig(batch_size=3, devices=2, num_nodes=2)


def test_a_nested_field_is_checked() -> None:
    with pytest.raises(ValidationError, match="cutout_size"):
        TrainConfig(augmentation={"cutout_size": 0})  # type: ignore[arg-type]


def test_a_configuration_cannot_be_changed_behind_its_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe("demo").lr = -1  # type: ignore[misc]


def test_a_damaged_configuration_file_is_named(tmp_path) -> None:
    run = Run(tmp_path / "run")
    run.create(TrainConfig(augmentation=Augmentation(flip=True)))
    assert run.config() == TrainConfig(augmentation=Augmentation(flip=True))
    run.config_file.write_text(run.config_file.read_text()[:100])
    with pytest.raises(RunError, match=r"run.config\.json is not a valid configuration"):
        run.config()


def test_the_learning_rate_warms_up_by_iteration_and_falls_along_a_cosine() -> None:
    optimization = OptimizationConfig(epochs=10, lr=0.4, lr_start=0.1, warmup_epochs=2.5)
    steps = 4  # an epoch: 10 of warm-up, 30 of cosine
    rates = [learning_rate(step, steps, optimization) for step in range(40)]
    assert rates[:11] == pytest.approx([0.1 + 0.03 * k for k in range(11)], rel=1e-14)
    assert rates[10:] == pytest.approx([0.2 * (1 + cos(pi * k / 30)) for k in range(30)], rel=1e-14)
    assert max(rates) == rates[10] == 0.4
    assert learning_rate(40, steps, optimization) == 0
    assert len(set(rates[10:])) == 30  # a new rate at every iteration


def test_the_published_warm_up_starts_at_1e_7() -> None:
    config = recipe("cifar10-vgg8").optimization
    assert learning_rate(0, 391, config) == 1e-7
    assert learning_rate(3910, 391, config) == 0.002
    assert learning_rate(300 * 391 - 1, 391, config) < 1e-9


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 10, OptimizationConfig(epochs=1, lr=0.3, warmup_epochs=0)) == 0.3


def test_the_whole_run_can_be_warm_up() -> None:
    config = OptimizationConfig(epochs=1, lr=1.0, lr_start=0, warmup_epochs=1)
    assert [learning_rate(step, 4, config) for step in range(4)] == [0, 0.25, 0.5, 0.75]


def test_weight_decay_is_on_all_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = make_optimizer(model, OptimizationConfig(lr=0.5, weight_decay=0.25, momentum=0.8))
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.5, 0.25, 0.8)
    assert (group["nesterov"], group["dampening"]) == (False, 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"augmentation": Augmentation(crop_padding=33)}, "augmentation.crop_padding is 33 pixels, more than"),
        ({"augmentation": Augmentation(cutout="square"), "image_size": 8}, "augmentation.cutout_size is 16 pixels"),
        ({"temperature": 1e-30}, "temperature"),
        ({"temperature": 1e30}, "temperature"),
    ],
)
def test_values_that_leave_nothing_to_learn_from_are_refused(changes, why) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        TrainConfig(**changes)
    assert TrainConfig(augmentation=Augmentation(cutout="rectangle", crop_padding=8), image_size=8)


def stored_configurations() -> list[dict[str, Any]]:
    """Of all results that experiments have kept."""
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value] if {"model", "lr", "circuit", "seed"} <= value.keys() else [])
            value = list(value.values())
        for entry in value if isinstance(value, list) else []:
            walk(entry)

    for file in (Path(__file__).parents[2] / "experiments" / "results").rglob("*.json"):
        walk(json.loads(file.read_text()))
    return found


def test_configurations_of_older_runs_are_read() -> None:
    stored = stored_configurations()
    assert len(stored) > 20
    for fields in stored:
        read = TrainConfig.model_validate_json(json.dumps(fields)).json_fields()
        assert {name: read[name] for name in ("model", "lr", "seed")} == {
            name: fields[name] for name in ("model", "lr", "seed")
        }


@pytest.mark.parametrize(
    ("field", "off", "on"), [("center_gradients", False, True), ("synaptic_scaling", 0.0, 0.05)], ids=str
)
def test_an_option_that_is_no_more_may_be_off(field: str, off: Any, on: Any) -> None:
    assert TrainConfig(lr=0.5, **{field: off}) == TrainConfig(lr=0.5)
    with pytest.raises(ValueError, match=f"{field} is {on}, an option that is no more: use eisnn 0.1.0, or train"):
        TrainConfig(lr=0.5, **{field: on})


def test_a_field_is_given_once() -> None:
    with pytest.raises(ValueError, match="lr is given beside optimization, which it is a part of"):
        TrainConfig(lr=0.5, optimization={"epochs": 3})


def test_a_configuration_holds_augmentation_of_images_or_of_events() -> None:
    for augmentation in (Augmentation(flip=True, crop_padding=2), EventAugmentation(flip=True, roll=5)):
        config = recipe("demo").changed(augmentation=augmentation)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config
        assert config.data.augmentation == augmentation
