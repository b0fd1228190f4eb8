"""Attention between spikes, as it reads: what queries find in keys, and what of the values goes on.

Queries, keys and values of one head are spikes `[..., N, d]`: N tokens (positions of a map), d channels. The attention
map `A = Q K^T` counts at how many channels the query of one token and the key of another fire together, so nothing in
it is negative, and its row sums `A 1` may divide: a softmax without exponentials, pooled inhibition in a circuit.
"""

from torch import Tensor


def attention_map(q: Tensor, k: Tensor) -> Tensor:
    """`A = Q K^T`, `[..., N, N]`."""
    return q @ k.mT


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`A V`, `[..., N, d]`, in the order that takes fewer multiply-adds: there is nothing between the two products, so
    `Q (K^T V)` is the same, with a cost that grows as N and not as its square. Counts of spikes are exact."""
    return q @ (k.mT @ v) if keys_first(q) else attention_map(q, k) @ v


def keys_first(q: Tensor) -> bool:
    """Whether `Q (K^T V)` is the cheaper order for queries `[..., N, d]`."""
    return q.shape[-1] <= q.shape[-2]


def attention_sum(q: Tensor, k: Tensor) -> Tensor:
    """`A 1`, `[..., N, 1]`: how much each token attends in all."""
    return q @ k.sum(-2).unsqueeze(-1)
