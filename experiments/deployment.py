"""What becomes of trained demo networks when they are deployed: accuracy of each form of division and of integers,
sizes and times. Networks are trained once and kept.

    python experiments/deployment.py --seeds 3 --evaluate-epochs 25 --output experiments/results/deployment
"""

import argparse
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from study import budgeted, parser, run_folder, run_script, train
from torch import Tensor, nn

from eisnn.deploy import Division, divide, hold, integer, write_aoti, write_c, write_onnx
from eisnn.deploy.c import state_bytes, weight_bytes
from eisnn.deploy.division import divides
from eisnn.interop import load_trained
from eisnn.nn import fold
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
        subprocess.run(
            ["cc", "-std=c99", "-O3", "-o", "classify", "main.c", "network.c", "weights.c"],
            cwd=folder / "c",
            check=True,
        )
        start = time.perf_counter()
        given = pixels[:TIMED].numpy().tobytes()
        out = subprocess.run([folder / "c" / "classify", "-"], input=given, capture_output=True, check=True).stdout
        seconds = time.perf_counter() - start
        logits = torch.tensor([list(map(int, line.split())) for line in out.decode().splitlines()])
        found["c"] = {
            "ms": 1000 * seconds / TIMED,
            "bytes": weight_bytes(whole),
            "state bytes": state_bytes(whole),
            "equal to the simulation": bool(torch.equal(logits, whole(pixels[:TIMED]))),
        }
    return found


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in RECIPES}
    times: dict[str, Any] = {}
    for seed in range(args.seeds):
        for name in RECIPES:
            train(name, budgeted(recipe(name), args), seed, args, keep=True)
            trained = load_trained(run_folder(name, seed, args))
            pixels, labels = trained.test_pixels(), trained.dataset.test.labels
            runs[name].append(accuracies(trained.model.eval(), trained.training_images(1000), pixels, labels))
            print(name, seed, {key: round(value, 1) for key, value in runs[name][-1].items()}, flush=True)
            if seed == 0 and name == TIMED_NETWORK:
                times = sizes_and_times(trained.model, pixels)
                print(times, flush=True)
    summary: dict[str, Any] = {}
    for name, found in runs.items():
        columns = {key: [run[key] for run in found] for key in found[0]}
        summary[name] = {key: {"mean": statistics.mean(values)} for key, values in columns.items()}
        if args.seeds > 1:
            for key, values in columns.items():
                summary[name][key]["standard_deviation"] = statistics.stdev(values)
    write_result(
        args.output / "deployment.json",
        {**provenance(), "n": args.seeds, "summary": summary, "runs": runs, TIMED_NETWORK + ", seed 0": times},
    )


if __name__ == "__main__":
    options = parser(__doc__, runs=Path("runs/deploy"))
    run_script(lambda: main(options.parse_args()))
