"""Print the results of `eisnn bench --floor` as a Markdown table.

python benchmarks/table.py benchmarks/results/cpu_{vgg8,vgg16,resnet18}_b{32,16}.json
"""

import argparse
import json
from pathlib import Path

HEAD = "| network | batch | E-I, ms | BN, ms | E-I / BN | CPU time | beyond convolutions: E-I, BN, ms | kept |"


def row(file: Path) -> str:
    result = json.loads(file.read_text())
    networks, ratio = result["networks"], result["ei_over_bn"]
    ms = {name: 1000 * numbers["step_seconds"] for name, numbers in networks.items()}
    beyond = ", ".join(f"{ms[name] - ms[f'{name}_floor']:.0f}" for name in ("ei", "bn"))
    cells = (
        result["model"],
        result["batch_size"],
        f"{ms['ei']:.0f}",
        f"{ms['bn']:.0f}",
        *(f"{ratio[k]:.2f}" for k in ("step_seconds", "step_cpu_seconds")),
        beyond,
        f"{ratio['saved_bytes']:.2f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    files = parser.parse_args().results
    print(HEAD)
    print("|" + "---|" * HEAD.count(" | ") + "---|")
    for file in files:
        print(row(file))


if __name__ == "__main__":
    main()
