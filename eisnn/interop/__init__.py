"""Other people's formats and networks: checkpoints of the paper's authors, recordings for Neo and NWB, networks of
other libraries; and every trained network by one call, whoever wrote it."""

from eisnn.interop.authors import read_released, write_released
from eisnn.interop.trained import Trained, evaluate, load_trained

__all__ = ["Trained", "evaluate", "load_trained", "read_released", "write_released"]
