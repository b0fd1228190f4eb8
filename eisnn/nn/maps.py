"""What stands between circuits in networks of your own, over sequences: pooling and shortcuts. Both keep a non-negative
input non-negative, as circuits need it. Flattening needs nothing of ours: `torch.nn.Flatten(2)`."""

from torch import Tensor, nn
from torch.nn import functional as F

from eisnn.functional.checks import check_int
from eisnn.nn.layer import check_floating
from eisnn.ops import average_pool


class AveragePool2d(nn.Module):
    """Average pooling of each step's maps: `[T, B, C, H, W]` -> `[T, B, C, H // k, W // k]`.

    Args:
        kernel_size: k, also the stride, >= 1.
    Raises: ValueError for another number of axes, or maps smaller than the kernel.
    """

    def __init__(self, kernel_size: int = 2) -> None:
        super().__init__()
        check_int("AveragePool2d", "kernel_size", kernel_size)
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        check_floating(x, "AveragePool2d")
        k = self.kernel_size
        if x.ndim != 5 or min(x.shape[-2:]) < k:
            raise ValueError(
                f"AveragePool2d takes sequences [T, B, C, H, W] of maps of at least {k}x{k}, got shape {list(x.shape)}"
            )
        return average_pool(x) if k == 2 else F.avg_pool2d(x.flatten(0, 1), k).unflatten(0, x.shape[:2])

    def extra_repr(self) -> str:
        return f"{self.kernel_size}"


class Shortcut(nn.Module):
    """A branch with a way around it: `branch(x) + x`, or `branch(x) + around(x)`, over sequences `[T, B, ...]`.

    What is added are spikes, after the neurons (SEW-ResNet, Fang et al. 2021), so that sums of spikes go on.

    Args:
        branch: layers, such as `nn.Sequential(EIConv2d(...), EIConv2d(...))`.
        around: a layer that gives the input the shape of the branch's output, such as a 1x1 `EIConv2d`; None passes the
            input on.
    Raises: ValueError where the two shapes differ: they are never broadcast.
    """

    def __init__(self, branch: nn.Module, around: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.around = branch, around

    def forward(self, x: Tensor) -> Tensor:
        y, past = self.branch(x), x if self.around is None else self.around(x)
        if y.shape != past.shape:
            raise ValueError(
                f"the branch gives {list(y.shape)} and the way around it {list(past.shape)}; they must have one shape: "
                "give `around` a layer that changes it in the same way, such as a 1x1 EIConv2d with the same stride"
            )
        return y + past
