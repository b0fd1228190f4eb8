"""What the paper's circuit reaches at the budget of the tables, by learning rate and by what is cut out of its images.

At the rate of the tables it is at the edge of stability, so that their row of the paper depends on the cutout.

    python experiments/cutout.py --data-path CIFAR10 --seeds 3
"""

from study import parser, run_script, study
from table2 import BASE
from telling import Row

from eisnn.data import Augmentation

RATES = (0.002, 0.003, 0.005)
AUGMENTATIONS = {
    "square": BASE.data.augmentation,
    "published": BASE.data.augmentation.model_copy(update={"cutout": "published"}),
    "flips alone": Augmentation(flip=True),
}


def rows() -> list[Row]:
    return [
        Row(f"{rate}, {name}", BASE.changed(lr=rate, augmentation=augmentation), versus=f"{rate}, square")
        for rate in RATES
        for name, augmentation in AUGMENTATIONS.items()
    ]


if __name__ == "__main__":
    budget = {"epochs": 8, "subset": 4000, "test_images": 1000, "width": 0.25, "batch_size": 64}
    run_script(lambda: study(rows(), parser(__doc__, **budget).parse_args()))
