"""Table 2: what becomes of VGG-8 on CIFAR-10 when one part of the method is missing.

Below the paper's rows stand ablations that it does not have. Figures of the paper are for 300 epochs on all images.

    python experiments/table2.py --data-path CIFAR10                       # the full recipe, one seed
    python experiments/table2.py --data-path CIFAR10 --seeds 3 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

from study import parser, run_script, study
from telling import Row

from eisnn.train import recipe

BASE = recipe("cifar10-vgg8")
PUBLISHED = {
    "kaiming-clamped": "85.61",
    "epsilon-1e-8": "failed to converge",
    "epsilon-1e-7": "failed to converge",
    "epsilon-1e-6": "collapsed (epoch 22)",
    "epsilon-1e-5": "collapsed (epoch 5)",
    "no-gradient-scaling": "collapsed (epoch 10)",
    "no-sign-constraint": "failed to converge",
}
OURS = (
    "epsilon-1e-4",
    "epsilon-1e-3",
    "epsilon-1e-2",
    "no-straight-through",
    "subtractive-only",
    "divisive-only",
    "floor",
    "floor-0.1",
)


def rows() -> list[Row]:
    """The whole method first; then the paper's ablations and ours."""
    ratios = [Row(f"E:I ratio {n}:1", BASE.changed(ei_ratio=n)) for n in (1, 2, 8)]
    return [
        Row("the whole method", BASE, "87.03"),
        *(Row(name, BASE.changed(ablation=name), published) for name, published in PUBLISHED.items()),
        *(Row(name, BASE.changed(ablation=name)) for name in OURS),
        *ratios,
    ]


if __name__ == "__main__":
    run_script(lambda: study(rows(), parser(__doc__).parse_args()))
