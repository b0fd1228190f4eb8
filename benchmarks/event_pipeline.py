"""What recordings cost from raw file to answer: bytes on disk, conversion, frames, and each step of a stream.

    python benchmarks/event_pipeline.py --nmnist ../shared/data/nmnist-1100.npz --folder runs/simulated \
        --run runs/nmnist-demo

Raw files are N-MNIST's official `.bin`, written from the archive, and those of the folder, such as `eisnn events
simulate` writes. The stream is the run's own evaluation split, recording by recording, in windows of a sixth of each;
its answers must be those of the whole sequences (in float64 but for rounding, in float32 the same class). CPU seconds
are those of the process, which other work on the same cores does not change.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from eisnn.data.events import EventAugmentation, Events, folder, nmnist, write
from eisnn.data.events.frames import FrameSettings, batch_of
from eisnn.data.events.layout import Layout
from eisnn.data.events.recordings import Recordings
from eisnn.data.events.store import open_store
from eisnn.interop import load_trained
from eisnn.live import watch, windows
from eisnn.provenance import provenance, write_result


def official(archive: Path, place: Path) -> Layout | None:
    """N-MNIST's official files, of the recordings in an archive."""
    found = nmnist.find(archive)
    assert found is not None
    for file in found.files:
        for name, _, events in found.recordings(file):
            split, digit, number = name.split("/")
            write(events, place / split.title() / digit / f"{number}.bin")
    return nmnist.find(place)


def on_disk(layout: Layout | None, place: Path) -> dict[str, Any]:
    """Bytes of the raw files and of what they are converted to, and how fast."""
    assert layout is not None
    start = time.process_time()
    store = open_store(layout, place)
    seconds, events = time.process_time() - start, int(store.offsets[-1])
    return {
        "recordings": len(store),
        "events": events,
        "raw_bytes": store.raw_bytes,
        "packed_bytes": store.nbytes,
        "part": round(store.nbytes / store.raw_bytes, 3),
        "cpu_seconds": round(seconds, 2),
        "events_per_cpu_second": round(events / seconds),
    }


def frames(repeats: int) -> dict[str, Any]:
    """CPU seconds in which 32 recordings of 200,000 events of a DVS128 become ten augmented frames of 48 x 48."""
    rng, count, steps = np.random.default_rng(0), 200_000, 10
    columns = (rng.integers(0, high, count).astype(kind) for high, kind in ((128, "u2"), (128, "u2"), (2, "u1")))
    events = Events(np.sort(rng.integers(0, 1_300_000, count)), *columns, (128, 128))
    batch = batch_of([events] * 32, steps, FrameSettings(bins="count"))
    augmentation = EventAugmentation(resized_crop=(0.7, 1.0), flip=True, roll=5, rotation=30, shear=30, cutout=8)
    seconds = []
    for k in range(repeats):
        draws = augmentation.draw(32, (steps, 2, 48, 48), torch.Generator().manual_seed(k))
        start = time.process_time()
        augmentation.apply(batch, draws, 48)
        seconds.append(time.process_time() - start)
    return {"cpu_seconds": round(median(seconds), 3), "events_per_cpu_second": round(32 * count / median(seconds))}


def stream(run: Path, count: int, data_path: Path | None) -> dict[str, Any]:
    """Steps of a run's network over its evaluation split, beside the whole sequences."""
    trained = load_trained(run, data_path=None if data_path is None else str(data_path))
    split, size = trained.dataset.test, trained.config.data.image_size
    assert isinstance(split, Recordings)
    steps = split.time_steps
    seconds, events, same, apart, right, cpu = [], 0, 0, 0.0, 0, 0.0
    exact = trained.model.double()
    for k in range(min(count, len(split))):
        recording = split.recording(k)
        recording.t[-1] += -(recording.t[-1] + 1) % steps  # its time divides into T windows
        window = (recording.duration + 1) // steps
        frames = EventAugmentation().apply(batch_of([recording], steps, split.settings), {}, size)
        answers = []
        for dtype in (torch.float64, torch.float32):
            model = exact.to(dtype)
            with torch.inference_mode():
                whole = model(frames.to(dtype))[0]
            start = time.process_time()
            watched = list(watch(model, windows([recording], window), size=size, settings=split.settings))
            used = time.process_time() - start
            assert len(watched) == steps
            answers.append((whole, watched[-1].mean))
        (whole, last), (whole32, last32) = answers
        apart = max(apart, float((whole - last).abs().max()))
        same += bool(whole32.argmax() == last32.argmax())
        right += bool(last32.argmax() == split.labels[k])
        cpu += used  # in float32, as the latencies are
        seconds += [step.seconds for step in watched]
        events += len(recording)
    return {
        "recordings": min(count, len(split)),
        "largest_difference_of_logits_float64": apart,
        "same_class_float32": same,
        "right": right,
        "steps": len(seconds),
        "step_ms_median": round(1e3 * median(seconds), 2),
        "step_ms_95_percent": round(1e3 * float(np.percentile(seconds, 95)), 2),
        "step_cpu_ms": round(1e3 * cpu / len(seconds), 2),
        "events_per_second": round(events / sum(seconds)),
        "events_per_cpu_second": round(events / cpu),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nmnist", type=Path, required=True, help="archive of recordings of N-MNIST")
    parser.add_argument("--folder", type=Path, help="recordings as SPLIT/CLASS/RECORDING")
    parser.add_argument("--run", type=Path, help="trained on N-MNIST by `nmnist-demo` or the like")
    parser.add_argument("--recordings", type=int, default=100, help="of the evaluation split, to watch")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "event_pipeline.json")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        result["nmnist"] = on_disk(official(args.nmnist, root / "nmnist"), root / "nmnist-store")
        if args.folder:
            result[args.folder.name] = on_disk(folder.find(args.folder), root / "folder-store")
    result["frames"] = frames(args.repeats)
    if args.run:
        result["stream"] = stream(args.run, args.recordings, args.nmnist)
    for name, row in result.items():
        print(f"{name:12}" + ", ".join(f"{what} {value:,}" for what, value in row.items()))
    write_result(args.output, {**provenance(), **result})


if __name__ == "__main__":
    main()
