"""Record the currents of E-I circuits while a model runs.

The fused path of a layer never forms its inner currents; the recorder recomputes them from the layer's input, as
written in eqs. (9)-(14), and leaves what the model returns untouched.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eisnn import functional as EF
from eisnn.nn import EILayer

CURRENTS = ("I_EE", "I_sub", "I_div", "I_E")


@contextmanager
def record(
    model: nn.Module, layers: str | Iterable[str] | None = None, what: str | Iterable[str] = CURRENTS
) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Collect currents of hidden E-I layers from every forward pass inside the `with` block.

    Args:
        model: any module that holds E-I layers.
        layers: one name or several, as in `model.named_modules()`; None takes every hidden E-I layer.
        what: one or several of `I_EE` (feedforward excitation), `I_sub` and `I_div` (subtractive and divisive
            inhibition) and `I_E` (integrated current), eqs. (9)-(14).
    Yields: `{layer: {current: [T or 1, B, n_E, ...]}}`, on the model's device; several passes are joined along B. A
        static input has one time step, as its currents are the same at each.
    Raises: ValueError for a name that does not exist or is no E-I layer.
    """
    what = _names(what)
    if unknown := [name for name in what if name not in CURRENTS]:
        raise ValueError(f"what holds {', '.join(unknown)}; known: {', '.join(CURRENTS)}")
    found = {name: module for name, module in model.named_modules() if isinstance(module, EILayer)}
    names = list(found) if layers is None else _names(layers)
    if unknown := [name for name in names if name not in found]:
        raise ValueError(f"no hidden E-I layer is called {', '.join(unknown)}; there are: {', '.join(found) or 'none'}")
    recorded: dict[str, dict[str, Tensor]] = {name: {} for name in names}

    def hook(name: str) -> Any:
        def after_forward(layer: EILayer, args: Any, kwargs: Any, output: Any) -> None:
            new = layer_currents(layer, args[0] if args else kwargs["x"])
            for current in what:
                old = recorded[name].get(current)
                recorded[name][current] = new[current] if old is None else torch.cat([old, new[current]], 1)

        return after_forward

    handles = [found[name].register_forward_hook(hook(name), with_kwargs=True) for name in names]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _names(given: str | Iterable[str]) -> list[str]:
    """Each name once; a string is one name."""
    return [given] if isinstance(given, str) else list(dict.fromkeys(given))


@torch.no_grad()
def layer_currents(layer: EILayer, x: Tensor) -> dict[str, Tensor]:
    """All currents of one layer for its input `x` `[T or 1, B, ...]`, each `[T or 1, B, n_E, ...]`."""
    i_ee, i_sub, i_div = EF.currents_of(x, layer.synapses(), layer.connection)
    i_e = EF.integrate(i_ee - i_sub, i_div, layer.gain_e, layer.bias)
    return {"I_EE": i_ee, "I_sub": i_sub, "I_div": i_div, "I_E": i_e}
