"""Table 3: factors on the gradient of W_EI, VGG-8 on CIFAR-10.

The paper names the default, 1/d, and two factors around it (ours: a tenth and ten times), and no scaling. Ours is
1/sqrt(d) as well: the relative gradient of W_EI is 4 to 20 times that of W_EE, not d times.

    python experiments/table3.py --data-path CIFAR10 --seeds 3 --epochs 8 --subset 4000 --test-images 1000 --width 0.25
"""

from study import parser, run_script, study
from telling import Row

from eisnn.train import recipe

BASE = recipe("cifar10-vgg8")


def rows() -> list[Row]:
    return [
        Row("1/d", BASE, "86.88"),
        Row("no scaling", BASE.changed(ablation="no-gradient-scaling"), "collapsed"),
        Row(
            "0.1/d",
            BASE.changed(ablation="gradient-scaling-0.1"),
            "86.87 or 86.33",
            "the paper's factors are not readable",
        ),
        Row(
            "10/d",
            BASE.changed(ablation="gradient-scaling-10"),
            "86.87 or 86.33",
            "the paper's factors are not readable",
        ),
        Row("1/sqrt(d)", BASE.changed(ablation="gradient-scaling-sqrt")),
    ]


if __name__ == "__main__":
    run_script(lambda: study(rows(), parser(__doc__).parse_args()))
