"""Training: a typed configuration, the published recipes, and `fit`."""

from eisnn.train.build import initial_model
from eisnn.train.checkpoint import CheckpointError
from eisnn.train.config import TrainConfig
from eisnn.train.engine import Result, fit, resume
from eisnn.train.loop import Diverged, Interrupted
from eisnn.train.optim import plus_optimizer
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
    "fit",
    "initial_model",
    "plus_optimizer",
    "recipe",
    "recipes",
    "resume",
]
