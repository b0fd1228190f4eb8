"""Ten real clips of DVS128 Gesture: drawn, and run through `dvs-gesture-vgg8` as the data set comes.

    python experiments/gesture_clips.py --clips ../shared/data/dvsgesture-10.npz

The clips, one of each of ten classes, are written as AEDAT 3.1 with tables of labels and lists of trials, the layout of
the official files; the test list names the same clips as the training list. `eisnn events show` draws each, and the
recipe trains on them at 48 x 48 pixels and 16 time steps. That it runs says that everything from the raw file to the
prediction works; what it makes of ten clips says nothing about accuracy on gestures. `ON ahead` is the share of moments
in which the ON events of a clip lie further along its motion than the OFF events: a moving arm brighter than what is
behind it has them ahead, a darker one behind.
"""

import argparse
import struct
from pathlib import Path

import numpy as np

from eisnn.data.events import Events, read
from eisnn.data.events.dvs_gesture import CLASSES, COLUMNS, LISTS, SIZE
from eisnn.data.events.show import show
from eisnn.process import subnormals_flushed
from eisnn.provenance import provenance, write_result
from eisnn.train import Run, fit, recipe, resume

HEADER = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
PACKET = 10_000  # events


def aedat3(events: Events) -> bytes:
    """Polarity packets of 8 bytes an event."""
    data = events.x.astype("<u4") << 17 | events.y.astype("<u4") << 2 | events.p.astype("<u4") << 1 | 1
    records = np.stack((data, events.t.astype("<u4")), 1)
    parts = [records[k : k + PACKET] for k in range(0, len(records), PACKET)]
    return HEADER + b"".join(
        struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(part), len(part), len(part)) + part.tobytes() for part in parts
    )


def write_clips(archive: Path, folder: Path) -> dict[str, Path]:
    """The official layout, of the clips in `archive`; their files by class."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with np.load(archive) as stored:
        for k, label in enumerate(stored["label"].tolist()):
            part = slice(*stored["offsets"][k : k + 2])
            columns = (stored[name][part].astype(kind) for name, kind in (("t", "i8"), ("x", "u2"), ("y", "u2")))
            events = Events(*columns, stored["p"][part], SIZE)
            file = files[CLASSES[label]] = folder / f"user{k + 1:02}_led.aedat"
            file.write_bytes(aedat3(events))
            table = f"{','.join(COLUMNS)}\n{label + 1},{events.t[0]},{events.t[-1] + 1}\n"
            file.with_name(f"{file.stem}_labels.csv").write_text(table)
    for name in LISTS.values():
        (folder / name).write_text("".join(f"{file.name}\n" for file in files.values()))
    return files


def on_ahead(events: Events, step: int = 20_000, fewest: int = 300) -> float:
    """In how many of the moments of `step` us, each between one before and one after, ON is ahead of OFF."""
    places = np.stack((events.x, events.y), 1).astype(float)
    moments = np.split(np.arange(len(events)), np.searchsorted(events.t, np.arange(step, events.t[-1], step)))
    found = []
    for before, now, after in zip(moments, moments[1:], moments[2:], strict=False):
        if min(map(len, (before, now, after))) < fewest:
            continue
        on, off = (now[events.p[now] == polarity] for polarity in (1, 0))
        motion, apart = (
            np.median(places[to], 0) - np.median(places[start], 0) for start, to in ((before, after), (off, on))
        )
        if np.linalg.norm(motion) >= 1:
            found.append(apart @ motion > 0)
    return float(np.mean(found))


@subnormals_flushed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="dvsgesture-10.npz")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/gesture-clips"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gesture_clips.json")
    args = parser.parse_args()
    files = write_clips(args.clips, args.runs / "DvsGesture")
    for name, file in files.items():
        show(file, output=args.runs / name)
    config = recipe("dvs-gesture-vgg8").changed(
        data_path=str(args.runs / "DvsGesture"),
        epochs=args.epochs,
        warmup_epochs=args.epochs / 10,
        evaluate_epochs=args.epochs,
        lr=0.003,
    )
    run = Run(args.runs / "run")
    if run.config_file.exists():
        resume(run.folder, quiet=True)
    else:
        fit(config, run.folder, quiet=True)
    curve = {line["epoch"]: line["test_accuracy"] for line in run.metrics("epoch") if "test_accuracy" in line}
    print(f"accuracy on the ten clips that it was trained on, by epoch: {curve}")
    about = {}
    for name, file in files.items():
        events = read(file)
        about[name] = {"events": len(events), "on_ahead": round(on_ahead(events), 3)}
        print(f"{name:27} {len(events):7,} events, ON ahead in {about[name]['on_ahead']:.0%} of the moments")
    write_result(args.output, {**provenance(), "clips": about, "accuracy": curve, "config": config.json_fields()})


if __name__ == "__main__":
    main()
