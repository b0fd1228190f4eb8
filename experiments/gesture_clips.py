"""Ten real clips of DVS128 Gesture: drawn, and run through `dvs-gesture-vgg8` as the data set comes.

    python experiments/gesture_clips.py --data-path ../shared/data/dvsgesture-10.npz

The clips, one of each of ten classes, are written as AEDAT 3.1 with tables of labels and lists of trials, the layout of
the official files; the test list names the same clips as the training list. `eisnn events show` draws each, and the
recipe trains on them at 48 x 48 pixels and 16 time steps. That it runs says that everything from the raw file to the
prediction works; what it makes of ten clips says nothing about accuracy on gestures. `ON ahead` is the share of moments
in which the ON events of a clip lie further along its motion than the OFF events: a moving arm brighter than what is
behind it has them ahead, a darker one behind. `isolated ON` is the share of ON among events that no other is near, in
place and time: pixels of such a camera leak, which makes ON events without any motion (Nozaki & Delbruck, 2017).
"""

import struct
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree
from study import budgeted, described, parser, run_script, train
from telling import evaluated

from eisnn.data.events import Events, read
from eisnn.data.events.dvs_gesture import CLASSES, COLUMNS, LISTS, SIZE
from eisnn.data.events.show import show
from eisnn.provenance import provenance, write_result
from eisnn.train import recipe

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


def isolated_on(events: Events, pixels: int = 4, time: int = 50_000) -> float:
    """The share of ON among events without another nearer than so many pixels in x and y, and so many us."""
    places = np.stack((events.x / pixels, events.y / pixels, events.t / time), 1)
    # Away from 0: where subnormal numbers are flushed, SciPy cannot divide what lies between it and the next number.
    places += 1
    nearest = KDTree(places).query(places, k=2, p=np.inf, distance_upper_bound=1)[0][:, 1]
    return float(events.p[np.isinf(nearest)].mean())


def main() -> None:
    options = parser(__doc__, rows=False, epochs=6)
    args = options.parse_args()
    if args.data_path is None:
        options.error("--data-path is missing: dvsgesture-10.npz")
    files = write_clips(Path(args.data_path), args.runs / "DvsGesture")
    for name, file in files.items():
        show(file, output=args.runs / name)
    config = budgeted(recipe("dvs-gesture-vgg8").changed(lr=0.003), args)
    config = config.changed(data_path=str(args.runs / "DvsGesture"), evaluate_epochs=args.epochs)
    result = train("ten clips", config, 0, args)
    curve = dict(zip(evaluated(result), result["accuracy"], strict=True))
    print(f"accuracy on the ten clips that it was trained on, by epoch: {curve}")
    about = {}
    for name, file in files.items():
        events = read(file)
        ahead, alone = on_ahead(events), isolated_on(events)
        about[name] = {"events": len(events), "on_ahead": round(ahead, 3), "isolated_on": round(alone, 3)}
        print(f"{name:27} {len(events):7,} events; ON ahead in {ahead:.0%} of moments; {alone:.0%} ON of isolated ones")
    told = {**provenance(), "clips": about, "accuracy": curve, "config": described(config)}
    write_result(args.output / f"{args.output.name}.json", told)


if __name__ == "__main__":
    run_script(main)
