"""An exponential moving average of the weights, kept and evaluated beside them.

Dale's law holds for it, as it does for any average of weights that are not negative. What is averaged are the raw
parameters (of an exactly balanced circuit those before scaling) and the running statistics of a batch norm.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from eisnn.models import SpikingNetwork
from eisnn.train.metrics import FiringRate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

PREFIX = "average."


class WeightAverage:
    """`a <- decay a + (1 - decay) w` after each step; after the first, `a = w`.

    Args:
        network: whose weights are averaged, on its device, without hooks and wrappers.
        decay: in (0, 1); the average reaches about 1 / (1 - decay) steps back.
        fabric: of the run.
    """

    def __init__(self, network: SpikingNetwork, decay: float, fabric: "Fabric") -> None:
        self._averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.rates = FiringRate(self._averaged.module)
        self.model = fabric.setup_module(self._averaged.module)

    def update(self, network: SpikingNetwork) -> None:
        """Take in the weights of `network` after a step."""
        self._averaged.update_parameters(network)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {PREFIX + name: value for name, value in self._averaged.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `tensors`, among the other tensors of a checkpoint; RuntimeError if one is missing."""
        mine = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        self._averaged.load_state_dict(mine)


def averaged_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The average in a checkpoint, under the names of the weights; {} if there is none."""
    prefix = f"{PREFIX}module."
    return {f"model.{name.removeprefix(prefix)}": t for name, t in tensors.items() if name.startswith(prefix)}
