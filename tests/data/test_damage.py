"""No damage to a file ends in another result without a word where the file has a digest, in a crash, or in waiting."""

from pathlib import Path

import damage
import damaged_events
from mutants import mutations

# Nothing in them says that a byte is another than was written.
MAY_DIFFER = {
    "tonic_sample.aedat4",
    "tonic_sample_ncars.dat",
    "N-MNIST, .bin",
    "DVS Gesture, user01_led.aedat",
    "DVS Gesture, user01_led_labels.csv",
}


def test_damaged_data_is_refused_by_name_or_mended(tmp_path: Path) -> None:
    with damage.data_kinds(tmp_path) as kinds:
        counted = damage.outcomes(kinds, count=13)
        digest = {kind.name: kind.digest for kind in kinds}
    for name, counts in counted.items():
        assert not any(counts[fault] for fault in damage.FAULTS), (name, counts)
        assert not (digest[name] and counts["different"]), (name, counts)
        assert counts["refused"] + counts["mended"] > 0, (name, counts)
    assert sum(counts.total() for counts in counted.values()) >= 200


def test_damaged_recordings_are_refused_by_name_or_read_as_they_are() -> None:
    rows = damaged_events.counted(count=20)
    for name, counts in rows.items():
        assert not any(counts[fault] for fault in damaged_events.FAULTS), (name, counts)
        assert not counts["different"] or name in MAY_DIFFER, (name, counts)
        assert counts["refused"] > 0 or name.startswith("store"), (name, counts)
    assert sum(counts.total() for counts in rows.values()) >= 300


def test_damage_is_the_same_for_the_same_seed_and_changes_something() -> None:
    data = bytes(range(256))
    damaged = list(mutations(data, seed=3, count=26))
    assert damaged == list(mutations(data, seed=3, count=26))
    assert damaged != list(mutations(data, seed=4, count=26))
    assert all(content != data for _, content in damaged)
    assert len({name.split(" at byte")[0] for name, _ in damaged}) == 13
