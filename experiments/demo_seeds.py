"""Accuracy of the demo's E-I networks and of their batch-norm twin over several seeds, also in mixed precision.

python experiments/demo_seeds.py --seeds 3 --only demo demo-plus demo-bn
python experiments/demo_seeds.py --seeds 3 --only demo "demo, bf16" --epochs 5
"""

from study import parser, run_script, study
from telling import Row

from eisnn.train import recipe


def rows() -> list[Row]:
    made = [Row(name, recipe(name)) for name in ("demo", "demo-plus", "demo-bn")]
    return [*made, Row("demo, bf16", recipe("demo").changed(precision="bf16"))]


if __name__ == "__main__":
    run_script(lambda: study(rows(), parser(__doc__).parse_args()))
