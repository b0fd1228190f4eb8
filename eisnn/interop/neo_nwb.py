"""Recordings in other programs' formats, and back: NumPy, Neo (extra `neo`) and NWB (extra `nwb`).

Time: step t of image b is the time `t * step` of trial b; a network has no seconds, so `step` is a convention (1 ms by
default). Neo gets a segment for each image. NWB has one clock, on which the images follow each other without a gap.
Currents of a static input are one sample that lasts for the whole image. Through Neo a recording reaches the files that
Neo writes, through NWB whatever reads that, pynapple for one. Values in bfloat16, which
none of them has, become float32.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eisnn.analysis.record import Recording
from eisnn.libraries import library

if TYPE_CHECKING:
    import neo

SPIKES = "spikes"
UNITS = {"I_E": "threshold", "membrane": "threshold"}  # others: the layer's own


def _array(tensor: Tensor) -> NDArray[Any]:
    """For NumPy, which has no bfloat16; float32 holds its values exactly."""
    found: NDArray[Any] = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().cpu().numpy()
    return found


def save_npz(file: Path, recording: Recording) -> None:
    """Write a recording to a NumPy archive: an array `[T or 1, B, ...]` under `LAYER/QUANTITY`, and the indices of
    sampled neurons under `LAYER/neurons`."""
    arrays: dict[str, Any] = {
        f"{layer}/{quantity}": _array(tensor)
        for layer, quantities in recording.items()
        for quantity, tensor in quantities.items()
    }
    arrays |= {f"{layer}/neurons": chosen.cpu().numpy() for layer, chosen in recording.neurons.items()}
    with open(file, "wb") as out:  # numpy would add its suffix to a name without one
        np.savez_compressed(out, **arrays)


def load_npz(file: Path) -> Recording:
    """The recording that `save_npz` wrote, on the CPU."""
    values: dict[str, dict[str, Tensor]] = {}
    neurons: dict[str, Tensor] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            layer, _, quantity = key.rpartition("/")
            tensor = torch.from_numpy(arrays[key])
            if quantity == "neurons":
                neurons[layer] = tensor
            else:
                values.setdefault(layer, {})[quantity] = tensor
    return Recording.of(values, neurons)


class _Layout(NamedTuple):
    """What a format without layers and maps has to remember of a recording, as JSON."""

    time_steps: int
    images: int
    step: float
    shapes: dict[str, dict[str, list[int]]]  # by layer and quantity: the recorded shape
    dtypes: dict[str, dict[str, str]]
    neurons: dict[str, list[int]]

    @classmethod
    def of(cls, recording: Recording, step: float) -> "_Layout":
        if not step > 0:
            raise ValueError(f"step is the duration of a time step in seconds and must be > 0, got {step!r}")
        tensors = {layer: quantities for layer, quantities in recording.items() if quantities}
        if not tensors:
            raise ValueError("nothing was recorded: run the model inside the `with record(...)` block")
        shapes = {layer: {q: list(v.shape) for q, v in quantities.items()} for layer, quantities in tensors.items()}
        dtypes = {
            layer: {q: str(_array(v).dtype) for q, v in quantities.items()} for layer, quantities in tensors.items()
        }
        every = [shape for of_layer in shapes.values() for shape in of_layer.values()]
        neurons = {layer: chosen.tolist() for layer, chosen in recording.neurons.items()}
        return cls(max(s[0] for s in every), every[0][1], step, shapes, dtypes, neurons)

    def duration(self, samples: int) -> float:
        """Of one sample, in seconds: a step, or where there is only one the whole image."""
        return self.step if samples == self.time_steps else self.step * self.time_steps

    def neuron_indices(self, layer: str, count: int) -> list[int]:
        """Of the neurons of a layer in its flattened map."""
        return self.neurons.get(layer) or list(range(count))

    def empty(self, layer: str, quantity: str) -> NDArray[Any]:
        """Room for the values, flattened to `[T or 1, B, n]`."""
        shape = self.shapes[layer][quantity]
        return np.zeros((*shape[:2], int(np.prod(shape[2:]))), dtype=self.dtypes[layer][quantity])

    def restored(self, flat: dict[str, dict[str, NDArray[Any]]]) -> Recording:
        values = {
            layer: {q: torch.from_numpy(v).view(self.shapes[layer][q]) for q, v in quantities.items()}
            for layer, quantities in flat.items()
        }
        return Recording.of(values, {layer: torch.tensor(chosen) for layer, chosen in self.neurons.items()})

    def to_json(self) -> str:
        return json.dumps({"eisnn": self._asdict()})

    @classmethod
    def from_json(cls, text: str | None, source: str) -> "_Layout":
        try:
            return cls(**json.loads(text or "")["eisnn"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{source} was not written by eisnn.analysis: it does not say which layers it holds"
            ) from error


def _flattened(recording: Recording) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Layer, quantity and values `[T or 1, B, n]`."""
    for layer, quantities in recording.items():
        for quantity, tensor in quantities.items():
            yield layer, quantity, _array(tensor.flatten(2))


def to_neo(recording: Recording, step: float = 1e-3) -> "neo.Block":
    """A recording as a Neo block: a segment for each image, with a `SpikeTrain` for each neuron and an `AnalogSignal`
    `[T, neurons]` for each other quantity of a layer; `layer`, `quantity` and `neuron` are annotations.

    Args:
        recording: of one or more passes.
        step: duration of a time step, seconds.
    Raises: ValueError if nothing was recorded; ImportError without Neo.
    """
    neo, quantities = library("neo", "neo"), library("quantities", "neo")
    layout = _Layout.of(recording, step)
    block = neo.Block(name="eisnn recording", description=layout.to_json())
    block.segments = [neo.Segment(name=f"image {b}", index=b) for b in range(layout.images)]
    end = layout.time_steps * step
    for layer, quantity, flat in _flattened(recording):
        for b, segment in enumerate(block.segments):
            if quantity != SPIKES:
                signal = neo.AnalogSignal(
                    flat[:, b],
                    units="dimensionless",
                    sampling_period=layout.duration(len(flat)) * quantities.s,
                    name=f"{layer} {quantity}",
                    layer=layer,
                    quantity=quantity,
                )
                segment.analogsignals.append(signal)
                continue
            for k, index in enumerate(layout.neuron_indices(layer, flat.shape[2])):
                times = np.flatnonzero(flat[:, b, k]) * step
                train = neo.SpikeTrain(times, units="s", t_stop=end, name=f"{layer} {index}", layer=layer, neuron=index)
                segment.spiketrains.append(train)
    return block


def from_neo(block: "neo.Block") -> Recording:
    """The recording that `to_neo` made a block of, also after Neo wrote and read it.

    Raises: ValueError for another block.
    """
    layout = _Layout.from_json(block.description, "this block")
    flat = {layer: {q: layout.empty(layer, q) for q in shapes} for layer, shapes in layout.shapes.items()}
    place = {layer: {n: k for k, n in enumerate(chosen)} for layer, chosen in layout.neurons.items()}
    for b, segment in enumerate(block.segments):
        for signal in segment.analogsignals:
            flat[signal.annotations["layer"]][signal.annotations["quantity"]][:, b] = signal.magnitude
        for train in segment.spiketrains:
            layer, neuron = train.annotations["layer"], int(train.annotations["neuron"])
            at = place[layer][neuron] if layer in place else neuron
            flat[layer][SPIKES][_steps(train.rescale("s").magnitude, layout.step), b, at] = 1
    return layout.restored(flat)


def write_nwb(file: Path, recording: Recording, step: float = 1e-3, description: str = "eisnn recording") -> None:
    """Write a recording to an NWB file: a trial for each image, a unit for each neuron with its spike times and the
    columns `layer` and `neuron`, and a `TimeSeries` `[samples, neurons]` for each other quantity of a layer.

    Args:
        file: its name should end in `.nwb`.
        recording: of one or more passes.
        step: duration of a time step, seconds.
        description: of the session.
    Raises: as `to_neo`; ImportError without pynwb.
    """
    pynwb = library("pynwb", "nwb")
    layout = _Layout.of(recording, step)
    end = layout.time_steps * step
    nwb = pynwb.NWBFile(
        session_description=description,
        identifier=str(uuid4()),
        session_start_time=datetime.now(UTC),
        notes=layout.to_json(),
    )
    for b in range(layout.images):
        nwb.add_trial(start_time=b * end, stop_time=(b + 1) * end)
    if any(SPIKES in shapes for shapes in layout.shapes.values()):
        nwb.add_unit_column("layer", "layer of the network")
        nwb.add_unit_column("neuron", "index of the neuron in the layer's flattened map")
    for layer, quantity, flat in _flattened(recording):
        in_row = flat.swapaxes(0, 1).reshape(-1, flat.shape[2])  # images one after the other
        if quantity == SPIKES:
            for k, index in enumerate(layout.neuron_indices(layer, flat.shape[2])):
                nwb.add_unit(spike_times=np.flatnonzero(in_row[:, k]) * step, layer=layer, neuron=index)
            continue
        series = pynwb.TimeSeries(
            name=f"{layer} {quantity}",
            data=in_row,
            unit=UNITS.get(quantity, "a.u."),
            rate=1 / layout.duration(len(flat)),
            description=f"{quantity} of {layer}, [samples, neurons]",
        )
        nwb.add_acquisition(series)
    with pynwb.NWBHDF5IO(str(file), "w") as io:
        io.write(nwb)


def read_nwb(file: Path) -> Recording:
    """The recording that `write_nwb` wrote.

    Raises: ValueError for another NWB file; ImportError without pynwb.
    """
    pynwb = library("pynwb", "nwb")
    with pynwb.NWBHDF5IO(str(file), "r") as io:
        nwb = io.read()
        layout = _Layout.from_json(nwb.notes, str(file))
        flat: dict[str, dict[str, NDArray[Any]]] = {layer: {} for layer in layout.shapes}
        for layer, shapes in layout.shapes.items():
            for quantity in shapes:
                room = layout.empty(layer, quantity)
                in_row = np.zeros((room.shape[0] * room.shape[1], room.shape[2]), room.dtype)
                if quantity == SPIKES:
                    own = [k for k, name in enumerate(nwb.units["layer"][:]) if name == layer]
                    for column, unit in enumerate(own):
                        in_row[_steps(nwb.units["spike_times"][unit], layout.step), column] = 1
                else:
                    in_row[:] = nwb.acquisition[f"{layer} {quantity}"].data[:]
                flat[layer][quantity] = np.ascontiguousarray(
                    in_row.reshape(room.shape[1], room.shape[0], -1).swapaxes(0, 1)
                )
    return layout.restored(flat)


def _steps(times: NDArray[Any], step: float) -> NDArray[np.int64]:
    return np.rint(np.asarray(times) / step).astype(np.int64)
