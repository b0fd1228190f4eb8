"""What becomes of trained networks when they are deployed: accuracy of each form of division and of integers, with and
without a few epochs of training through the division, costs, sizes and times. Networks are trained once and kept; those
of seed 0 are the ones in the package.

    python experiments/deployment.py --seeds 3 --evaluate-epochs 25 --output experiments/results/deployment
    python experiments/deployment.py --costs --output experiments/results/deployment    # these alone, into its results
    python experiments/deployment.py --other RUN --data-path CIFAR10 --output experiments/results/deployment_vgg8
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from study import demo_network, described, going_on, parser, positive, run_folder, run_script, train
from torch import Tensor, nn

from eisnn.deploy import Division, cost, divide, hold, integer, write_aoti, write_c, write_onnx
from eisnn.deploy.c import state_bytes, weight_bytes
from eisnn.deploy.division import divides
from eisnn.interop import Trained, load_trained
from eisnn.nn import PAPER, PLUS, fold
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

RECIPES = ("demo", "demo-plus", "demo-bn")
DIVISIONS = {
    "shift": Division("shift"),
    "lut, 4 entries": Division("lut", 4),
    "lut, 16 entries": Division("lut", 16),
    "lut, 64 entries": Division("lut", 64),
}
TIMED_NETWORK, TIMED = "demo-plus", 200  # images, one by one
COUNTED = 256  # training images, for rates
TUNED = {"exact": Division(), "shift": Division("shift")}  # what a trained network goes on learning through
EPOCHS, TUNED_LIKE = 5, {"demo": PAPER, "demo-plus": PLUS}
COMPILERS = {"": "cc", ", 32-bit ARM": "arm-linux-gnueabihf-gcc"}


@torch.no_grad()
def classes_of(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in images.split(100)])


def accuracies(model: nn.Module, train_images: Tensor, pixels: Tensor, labels: Tensor) -> dict[str, float]:
    """Test accuracy (%) of each form, and the share of answers (%) that are those of the network itself."""
    images = pixels.float() / 255
    forms: dict[str, Any] = {"float": fold(model)}
    if divides(model):
        forms |= {name: divide(model, division) for name, division in DIVISIONS.items()}
        forms["held"] = hold(model, train_images)
    answers = {name: classes_of(form, images) for name, form in forms.items()}
    for name in ("lut, 64 entries", "shift") if divides(model) else ("lut, 64 entries",):
        answers[f"integer, {name}"] = classes_of(integer(model, tuple(pixels.shape[1:]), DIVISIONS[name]), pixels)
    if divides(model):
        held = integer(forms["held"], tuple(pixels.shape[1:]))
        answers["integer, held"] = classes_of(held, pixels)
    found = {name: 100 * float((a == labels).float().mean()) for name, a in answers.items()}
    return found | {f"{name}, same": 100 * float((a == answers["float"]).float().mean()) for name, a in answers.items()}


def milliseconds(call: Callable[[int], object]) -> float:
    """Median CPU time of one image, after five that warm up."""
    spent = []
    for k in range(TIMED):
        start = time.process_time()
        call(k)
        spent.append(1000 * (time.process_time() - start))
    return statistics.median(spent[5:])


@torch.no_grad()
def sizes_and_times(model: nn.Module, pixels: Tensor) -> dict[str, Any]:
    """Of one network, in each format, on one thread."""
    images, folded = pixels[:TIMED, None].float() / 255, fold(model)
    found: dict[str, Any] = {
        "eisnn, folded": {
            "ms": milliseconds(lambda k: folded(images[k])),
            "bytes": sum(t.nbytes for t in folded.state_dict().values()),
        }
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        file = write_onnx(model, images[0], folder / "network.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        largest = max(
            float((torch.from_numpy(session.run(None, {"images": x.numpy()})[0]) - folded(x)).abs().max())
            for x in images
        )
        on_disk = sum(f.stat().st_size for f in folder.glob("network.onnx*"))
        ms = milliseconds(lambda k: session.run(None, {"images": images[k].numpy()}))
        found["onnx"] = {"ms": ms, "bytes": on_disk, "largest difference": largest}
        file = write_aoti(model, images[0], folder / "compiled.pt2")
        compiled = torch._inductor.aoti_load_package(str(file))
        largest = max(float((compiled(x) - folded(x)).abs().max()) for x in images)
        ms = milliseconds(lambda k: compiled(images[k]))
        found["torch"] = {"ms": ms, "bytes": file.stat().st_size, "largest difference": largest}
        whole = integer(model, tuple(pixels.shape[1:]))
        write_c(whole, [str(k) for k in range(10)], folder / "c")
        given = pixels[:TIMED].numpy().tobytes()
        for name, compiler in COMPILERS.items():
            if not shutil.which(compiler):
                continue
            static = ["-static"] if name else []
            command = [compiler, "-std=c99", "-O3", *static, "-o", "classify", "main.c", "network.c", "weights.c"]
            subprocess.run(command, cwd=folder / "c", check=True)
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            run = ["qemu-arm", "./classify", "-"] if name else ["./classify", "-"]
            out = subprocess.run(run, cwd=folder / "c", input=given, capture_output=True, check=True).stdout
            seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            logits = torch.tensor([list(map(int, line.split())) for line in out.decode().splitlines()])
            found[f"c{name}"] = {
                "ms, emulated" if name else "ms": 1000 * seconds / TIMED,
                "bytes": weight_bytes(whole),
                "state bytes": state_bytes(whole),
                "code bytes": code_bytes(compiler, folder / "c"),
                "equal to the simulation": bool(torch.equal(logits, whole(pixels[:TIMED]))),
            }
    return found


def code_bytes(compiler: str, folder: Path) -> int:
    """Of the machine code of `network.c`, optimised for size."""
    subprocess.run([compiler, "-std=c99", "-Os", "-c", "network.c"], cwd=folder, check=True)
    size = compiler.replace("cc", "size") if compiler == "cc" else compiler.replace("gcc", "size")
    out = subprocess.run([size, "network.o"], cwd=folder, check=True, capture_output=True, text=True).stdout
    return int(out.splitlines()[1].split()[0])


def costs(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Totals of the circuit as written and folded."""
    forms = {"as written": model, "folded": fold(model)}
    counted = {name: cost(form, images).json() for name, form in forms.items()}
    return {name: {key: v for key, v in found.items() if key != "layers"} for name, found in counted.items()}


def counted_again(file: Path) -> None:
    """Costs of the networks of seed 0, the package's, in the place of those in `file`."""
    found = json.loads(file.read_text())
    for name in RECIPES:
        trained = load_trained(name)
        found["seed 0"].setdefault(name, {})["costs"] = costs(trained.model, trained.training_images(COUNTED))
    write_result(file, found | {"costs": provenance()})


def tuned(name: str, network: Path, seed: int, args: argparse.Namespace) -> dict[str, Path]:
    """The network after a few more epochs, through exact division (what the epochs alone bring) and through shifts."""
    found = {}
    for kind, division in TUNED.items():
        row, options = f"{name}, {kind}", replace(TUNED_LIKE[name], division=division)
        train(row, going_on(recipe(name), network, EPOCHS, circuit_options=options), seed, args, keep=True)
        found[f"{name}, {EPOCHS} more epochs, {kind}"] = run_folder(row, seed, args)
    return found


def evaluated(trained: Trained, images: int | None = None) -> dict[str, float]:
    """`accuracies` of a network on its test images, or on so many of them, evenly chosen: they are sorted by class."""
    pixels, labels = trained.test_pixels(), trained.dataset.test.labels
    step = len(pixels) // (images or len(pixels))
    shown = trained.training_images(1000)
    return accuracies(trained.model.eval(), shown, pixels[::step][:images], labels[::step][:images])


def summary(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean over seeds and standard deviation of each number."""
    found = {}
    for key in runs[0]:
        values = [run[key] for run in runs]
        found[key] = {"mean": statistics.mean(values)}
        if len(values) > 1:
            found[key]["standard_deviation"] = statistics.stdev(values)
    return found


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    file, told = args.output / f"{args.output.name}.json", provenance()
    if args.costs:
        counted_again(file)
        return
    if args.other:
        trained = load_trained(args.other, data_path=args.data_path)
        runs = [evaluated(trained, args.images)]
        print(runs, flush=True)
        size = {"test images": args.images, "n": 1, "costs": costs(trained.model, trained.training_images(32))}
        write_result(file, told | size | {"runs": runs, "network": described(trained.config)})
        return
    found: dict[str, dict[str, dict[str, float]]] = {}  # by network and seed
    measured: dict[str, Any] = {}
    if file.exists():
        found, measured = (json.loads(file.read_text())[key] for key in ("runs", "seed 0"))
    for seed, name in product(range(args.seeds), args.only or RECIPES):
        network = demo_network(name, seed, args)
        forms = {name: network} | (tuned(name, network, seed, args) if name in TUNED_LIKE else {})
        for key, run in forms.items():
            if str(seed) not in found.setdefault(key, {}):
                found[key][str(seed)] = evaluated(load_trained(run))
                print(key, seed, {k: round(v, 1) for k, v in found[key][str(seed)].items()}, flush=True)
        if seed == 0 and name not in measured:
            trained = load_trained(network)
            measured[name] = {"costs": costs(trained.model, trained.training_images(COUNTED))}
            if name == TIMED_NETWORK:
                measured[name] |= sizes_and_times(trained.model, trained.test_pixels())
                print(measured[name], flush=True)
        means = {key: {"n": len(runs)} | summary(list(runs.values())) for key, runs in found.items()}
        write_result(file, told | {"summary": means, "runs": found, "seed 0": measured})


if __name__ == "__main__":
    options = parser(__doc__, runs=Path("runs/deploy"))
    options.add_argument("--other", type=Path, help="another trained network, in the place of the demo's")
    options.add_argument("--costs", action="store_true", help="count costs again, and keep all else of the results")
    options.add_argument("--images", type=positive, default=1000, help="of its test images")
    run_script(lambda: main(options.parse_args()))
