"""Division as cheap hardware does it: by a reciprocal that is a power of two, or one out of a table."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ONE = 1 << 15  # of the reciprocals, which are integers
_HALVED_FROM = 53  # of 128 parts of the mantissa: sqrt(2), from where on 1/2 is relatively nearer to 1/mantissa than 1


@dataclass(frozen=True)
class Division:
    """How a current is divided. A divisor is `mantissa * 2^exponent` with the mantissa in [1, 2); the exponent costs a
    shift.

    Args:
        kind: "exact"; "shift" rounds the divisor to a power of two, by at most a factor of 1.42; "lut" takes the
            reciprocal of the mantissa from a table.
        entries: of the table, a power of two from 2 to 1024; its relative error is at most about `1 / (2 entries)`.
    Raises: ValueError for another kind or number.
    """

    kind: Literal["exact", "shift", "lut"] = "exact"
    entries: int = 64

    def __post_init__(self) -> None:
        if self.kind not in ("exact", "shift", "lut"):
            raise ValueError(f'division is "exact", "shift" or "lut", got {self.kind!r}')
        if self.entries not in [1 << k for k in range(1, 11)]:
            raise ValueError(f"entries must be a power of two from 2 to 1024, got {self.entries!r}")

    @staticmethod
    def check(division: "Division") -> "Division":
        """`division`; TypeError if it is something else, such as the name of a kind."""
        if not isinstance(division, Division):
            raise TypeError(f"division is eisnn.deploy.Division, as Division('shift'), got {division!r}")
        return division

    def reciprocals(self) -> list[int]:
        """`2^15 / mantissa` for equal parts of [1, 2), as 16-bit integers."""
        if self.kind == "exact":
            raise ValueError("exact division has no table")
        if self.kind == "shift":
            return [ONE if part < _HALVED_FROM else ONE // 2 for part in range(128)]
        return [round(ONE / (1 + (part + 0.5) / self.entries)) for part in range(self.entries)]

    def reciprocal(self, divisor: Tensor) -> Tensor:
        """`1 / divisor` of positive numbers (0 for inf), with the gradient of the exact reciprocal at the divisor."""
        exact = 1 / divisor
        if self.kind == "exact":
            return exact
        table = torch.tensor(self.reciprocals(), dtype=divisor.dtype, device=divisor.device) / ONE
        mantissa, exponent = torch.frexp(divisor.detach())  # the mantissa in [1/2, 1)
        part = ((2 * mantissa - 1) * len(table)).long().clamp(0, len(table) - 1)
        approximate = torch.ldexp(table[part], 1 - exponent)
        approximate = torch.where(divisor.detach().isfinite(), approximate, exact.detach())
        return exact + (approximate - exact).detach()


EXACT = Division()
