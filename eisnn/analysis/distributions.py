"""Shape of a distribution, such as that of `I_E` in a layer: Gaussian at the start, of two modes after training?"""

from typing import NamedTuple

from torch import Tensor

TWO_MODES = 5 / 9  # the coefficient of a uniform distribution


class Moments(NamedTuple):
    """Of a sample: number, mean, unbiased variance, skewness and excess kurtosis (both 0 for a Gaussian), the last two
    corrected for its size (Joanes and Gill 1998, G1 and G2); NaN where it does not vary."""

    n: int
    mean: float
    variance: float
    skewness: float
    kurtosis: float


def moments(values: Tensor) -> Moments:
    """Moments of all `values`, any shape, at least four; mean in their units, variance in their square.

    Raises: ValueError for fewer, or for values that are not finite.
    """
    v = values.detach().double().flatten()
    n = v.numel()
    if n < 4 or not bool(v.isfinite().all()):
        raise ValueError(f"moments need at least 4 values, all finite; got {n} values")
    deviation = v - v.mean()
    second, third, fourth = (float(deviation.pow(k).mean()) for k in (2, 3, 4))
    skewness = kurtosis = float("nan")
    if second > 1e-24 * float(v.square().mean()):
        skewness = third / second**1.5 * (n * (n - 1)) ** 0.5 / (n - 2)
        kurtosis = ((n + 1) * (fourth / second**2 - 3) + 6) * (n - 1) / ((n - 2) * (n - 3))
    return Moments(n, float(v.mean()), second * n / (n - 1), skewness, kurtosis)


def bimodality_coefficient(values: Tensor) -> float:
    """`(skewness^2 + 1) / (kurtosis + 3 (n-1)^2 / ((n-2)(n-3)))` of SAS (Pfister et al. 2013,
    doi:10.3389/fpsyg.2013.00700).

    About 1/3 for a Gaussian, 5/9 for a uniform distribution, 1 for two equal atoms; above 5/9 it hints at two modes.
    Skewness alone raises it as well: an exponential distribution has 5/9 too. NaN where the values do not vary.

    Args:
        values: any shape, at least four.
    Raises: as `moments`.
    """
    m = moments(values)
    return (m.skewness**2 + 1) / (m.kurtosis + 3 * (m.n - 1) ** 2 / ((m.n - 2) * (m.n - 3)))
