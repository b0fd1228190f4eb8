"""Training: a typed configuration, the published recipes, and `fit`."""

from eisnn.train.checkpoint import CheckpointError
from eisnn.train.config import TrainConfig
from eisnn.train.engine import Diverged, Interrupted, Result, fit, resume
from eisnn.train.evaluation import evaluate
from eisnn.train.recipes import recipe, recipes
from eisnn.train.run import Run, RunError

__all__ = [
    "CheckpointError",
    "Diverged",
    "Interrupted",
    "Result",
    "Run",
    "RunError",
    "TrainConfig",
    "evaluate",
    "fit",
    "recipe",
    "recipes",
    "resume",
]
