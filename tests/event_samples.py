"""Every sample file beside other readers: independent libraries, and the slow readers of `event_loops`.

    python tests/event_samples.py

Each is compared event by event, in t, x, y and p. `loop` is ours too, but follows the format's description event by
event, and so does `st_mnist` with SciPy; the libraries are `aedat`, `evio` and `evlib`.
"""

import argparse
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import event_loops
import numpy as np
from numpy.typing import NDArray

from eisnn.data import DataError
from eisnn.data.events import Events, read

SAMPLES = Path(__file__).parents[2] / "shared/data/event-format-samples.zip"
Columns = tuple[NDArray, ...]


def aedat(file: Path) -> Columns:
    from aedat import Decoder

    events = np.concatenate([packet["events"] for packet in Decoder(file) if "events" in packet])
    return tuple(events[name] for name in events.dtype.names)


def evio(file: Path) -> Columns:
    from evio import read

    with tempfile.TemporaryDirectory() as folder:  # it goes by the name: N-MNIST's format is .bin
        events = read(copy(file, Path(folder) / file.with_suffix(file.suffix.replace("bs2", "bin")).name))
    return tuple(events[name] for name in "txyp")


def evlib(file: Path) -> Columns:
    from evlib import load_events

    events = load_events(str(file)).collect()
    return tuple(events[name].cast(int).to_numpy() for name in ("t", "x", "y", "polarity"))


def loop(reader: Callable[[bytes], list[event_loops.Event]], header: Callable[[bytes], int]) -> Callable:
    """The slow reader of a format whose header ends where `header` says."""

    def loop(file: Path) -> Columns:
        content = file.read_bytes()
        events = reader(content[header(content) :])
        return tuple(np.array(column) for column in zip(*sorted(events, key=lambda event: event[0]), strict=True))

    return loop


def st_mnist(file: Path) -> Columns:
    """SciPy, spike by spike."""
    from scipy.io import loadmat

    spikes = []
    for column in loadmat(file)["spiketrain"].T:
        (taxel,) = column[:-1].nonzero()[0]
        spikes.append((round(column[-1] * 1e6), taxel % 10, taxel // 10, column[taxel]))
    return tuple(np.array(column) for column in zip(*sorted(spikes, key=lambda spike: spike[0]), strict=True))


def lines(mark: bytes) -> Callable[[bytes], int]:
    """The end of the lines that begin so."""
    return lambda content: re.match(rb"(%b[^\n]*\n)*" % mark, content).end()


event_stream = loop(event_loops.event_stream, lambda content: 20)
five_bytes = loop(event_loops.five_bytes, lambda content: 0)
ORACLES: dict[str, list[Callable[[Path], Columns]]] = {
    "faery_dvs.es": [event_stream],
    "faery_evt2.raw": [evlib, loop(event_loops.evt2, lines(b"%"))],
    "hummus_nmnist_00002.es": [event_stream],
    "mnistdvs_mnist_0_scale04_0001.aedat": [loop(event_loops.aedat2, lines(b"#"))],
    "slayer_dvsgesture_hand_clapping.bs2": [evio, five_bytes],
    "slayer_nmnist_00001.bs2": [evio, five_bytes],
    "tonic_sample.aedat4": [aedat, evlib],
    "tonic_sample_ncars.dat": [evio, loop(event_loops.dat, lines(b"%"))],
    "tonic_sample_nmnist.bin": [evio, five_bytes],
    "tonic_sample_stmnist.mat": [st_mnist],
}


def same(events: Events, columns: Columns) -> bool:
    """Whether every event is the other reader's."""
    *others, polarity = columns
    pairs = zip((events.t, events.x, events.y, events.p), (*others, polarity > 0), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=SAMPLES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(arguments.samples) as archive:
        archive.extractall(folder)
        for file in sorted(Path(folder).iterdir()):
            try:
                events = read(file)
            except DataError as error:
                print(f"{file.name:36}{'refused':13}{str(error).partition(': ')[2]}")
                continue
            for oracle in ORACLES[file.name]:
                assert same(events, oracle(file)), f"{file.name}: {oracle.__name__} reads other events"
            others = ", ".join(oracle.__name__ for oracle in ORACLES[file.name])
            span = f"{events.t[0]} to {events.t[-1]} us"
            print(f"{file.name:36}{events.format:13}{len(events):8,} events, {span:42} = {others}")


if __name__ == "__main__":
    main()
