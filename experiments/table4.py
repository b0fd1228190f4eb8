"""Table 4: cost of an E-I network beside its batch-norm twin, on this machine; `eisnn bench` measures it.

python experiments/table4.py
python experiments/table4.py --models vgg8 --repeats 3 --batch-size 16
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from study import RESULTS, positive, run_script

from eisnn.analysis.figures import BLUE, GREY
from eisnn.bench import bench
from eisnn.provenance import provenance, write_result

# Seconds an epoch and peak memory (MB), batch norm and E-I, on an RTX 4090.
PUBLISHED = {
    "vgg8": ((7.3, 18.1), (2394, 2684)),
    "vgg11": ((9.5, 23.1), (2392, 2886)),
    "vgg16": ((16.9, 42.2), (3544, 5072)),
    "vgg19": ((19.4, 47.6), (3734, 5402)),
    "resnet18": ((38.8, 90.0), (5918, 9302)),
}
KEYS = {"step_seconds": "time", "peak_bytes": "memory"}


def table(results: dict[str, Any]) -> str:
    lines = [
        "| network | step, BN / E-I, ms | ratio | published | peak memory, BN / E-I, MiB | ratio | published |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, result in results.items():
        bn, ei = (result["networks"][name] for name in ("bn", "ei"))
        time, memory = PUBLISHED[model]
        lines.append(
            f"| {model} | {1000 * bn['step_seconds']:.0f} / {1000 * ei['step_seconds']:.0f} "
            f"| {result['ei_over_bn']['step_seconds']:.2f} | {time[1] / time[0]:.2f} "
            f"| {bn['peak_bytes'] / 2**20:.0f} / {ei['peak_bytes'] / 2**20:.0f} "
            f"| {result['ei_over_bn']['peak_bytes']:.2f} | {memory[1] / memory[0]:.2f} |"
        )
    return "\n".join(lines)


def draw(file: Path, results: dict[str, Any]) -> None:
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    for k, (axes, (key, name)) in enumerate(zip(figure.subplots(1, 2), KEYS.items(), strict=True)):
        ours = [result["ei_over_bn"][key] for result in results.values()]
        theirs = [PUBLISHED[model][k][1] / PUBLISHED[model][k][0] for model in results]
        places = range(len(results))
        axes.bar([x - 0.2 for x in places], ours, 0.4, color=BLUE, label="here")
        axes.bar([x + 0.2 for x in places], theirs, 0.4, color=GREY, label="published")
        axes.axhline(1, color="black", linewidth=0.6)
        axes.set(xticks=list(places), xticklabels=list(results), title=f"{name}, E-I / batch norm")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=130)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED))
    options.add_argument("--batch-size", type=positive, default=32)
    options.add_argument("--repeats", type=positive, default=5)
    options.add_argument("--output", type=Path, default=RESULTS / "table4")
    args = options.parse_args()
    results = {}
    for model in args.models:
        file = args.output / f"{model}.json"
        there = json.loads(file.read_text()) if file.exists() else {}
        asked = {"batch_size": args.batch_size, "repeats": args.repeats}
        same = all(there.get(key) == value for key, value in asked.items())
        results[model] = there if same else bench(model, output=file, **asked)
    stem = args.output / args.output.name
    ratios = {model: result["ei_over_bn"] for model, result in results.items()}
    write_result(stem.with_suffix(".json"), {**provenance(), "batch_size": args.batch_size, "ei_over_bn": ratios})
    stem.with_suffix(".md").write_text(table(results) + "\n")
    draw(stem.with_suffix(".png"), results)
    print(table(results))


if __name__ == "__main__":
    run_script(main)
