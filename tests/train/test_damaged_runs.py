"""Damaged files of a run: refused by name, or of no effect."""

from pathlib import Path

from damage import FAULTS, outcomes
from damaged_runs import run_kinds


def test_no_damage_to_the_files_of_a_run_goes_unnoticed(own_cache: None, tmp_path: Path) -> None:
    kinds = run_kinds(tmp_path)
    counted = outcomes(kinds, 13)
    for kind in kinds:
        counts = counted[kind.name]
        assert not any(counts[fault] for fault in FAULTS), f"{kind.name}: {counts}"
        if kind.digest or kind.name == "config.json":
            assert not counts["different"], f"{kind.name}: {counts}"
