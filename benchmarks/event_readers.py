"""Events a second that `eisnn.data.events.read` gives, beside other libraries on the same file, in one run.

    python benchmarks/event_readers.py --output benchmarks/results/event_readers.json

Peers: aedat, evio, evlib. Each file is read in turn by every library, `--repeats` times, and the medians of CPU time of
the process are compared. A small file is read many times over each time. `large` are random events; the sample files of
some thousand events show what opening a file and checking its header cost.
"""

import argparse
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np

from eisnn.data.events import Events, read, write
from eisnn.provenance import provenance, write_result

EVENTS = 3_000_000
AT_ONCE = 500_000  # events, at least, that a reader reads between two looks at the clock


def aedat(path: Path) -> int:
    from aedat import Decoder

    packets = [packet["events"] for packet in Decoder(path) if "events" in packet]
    return len(np.concatenate(packets))


def evio(path: Path) -> int:
    from evio import read

    return len(read(path))


def evlib(path: Path) -> int:
    from evlib import load_events

    return load_events(str(path)).collect().height


def recordings(samples: Path, folder: Path) -> dict[Path, list[Callable[[Path], int]]]:
    """The files, and who else reads them."""
    with zipfile.ZipFile(samples) as archive:
        archive.extractall(folder)
    rng = np.random.default_rng(0)
    large = Events(
        np.sort(rng.integers(0, 8_000_000, EVENTS)),
        *(rng.integers(0, high, EVENTS).astype(kind) for high, kind in ((240, "u2"), (180, "u2"), (2, "u1"))),
        (180, 240),
    )
    for name in ("large.dat", "large.bin"):
        write(large, folder / name)
    return {
        folder / "faery_evt2.raw": [evlib],
        folder / "tonic_sample.aedat4": [aedat, evlib],
        folder / "large.dat": [evio],
        folder / "large.bin": [evio],
        folder / "tonic_sample_ncars.dat": [evio],
        folder / "tonic_sample_nmnist.bin": [evio],
    }


def ours(path: Path) -> int:
    return len(read(path))


def measure(path: Path, readers: list[Callable[[Path], int]], repeats: int) -> dict[str, float]:
    """Median events a second of each reader; all must find as many events."""
    count, *others = (reader(path) for reader in readers)
    if any(other != count for other in others):
        raise SystemExit(f"{path.name}: the readers find {count} and {others} events")
    times = -(-AT_ONCE // count)
    seconds: dict[str, list[float]] = {reader.__name__: [] for reader in readers}
    for _ in range(repeats):
        for reader in readers:
            start = time.process_time()
            for _ in range(times):
                reader(path)
            seconds[reader.__name__].append(time.process_time() - start)
    return {name: round(times * count / median(taken)) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, default=Path("../shared/data/event-format-samples.zip"))
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rates = {
            path.name: measure(path, [ours, *peers], args.repeats)
            for path, peers in recordings(args.samples, Path(folder)).items()
        }
    for name, row in rates.items():
        print(f"{name:28}" + "  ".join(f"{reader} {rate / 1e6:8.2f}" for reader, rate in row.items()) + "  Mev/s")
    if args.output:
        peers = {name: version(name) for name in ("numpy", "aedat", "evio", "evlib")}
        write_result(args.output, {**provenance(), "peers": peers, "repeats": args.repeats, "events_per_second": rates})


if __name__ == "__main__":
    main()
