"""Tuning of recorded units by cell type, to stand beside that of a network: a table of your own, as CSV."""

import csv
from io import StringIO
from math import inf, nan
from pathlib import Path
from typing import NamedTuple

from eisnn.functional.cortex import POPULATIONS

LARGEST = {"osi": 1.0, "dsi": 1.0, "rate_hz": inf}


class Units(NamedTuple):
    """Of the units of one cell type: selectivity for orientation and direction in [0, 1], and rates in Hz, NaN where
    the table has none."""

    osi: list[float]
    dsi: list[float]
    rate: list[float]


# Medians of mouse V1 under drifting gratings (Neuropixels; E of layer 2/3), published with the GLIF model of the Allen
# Institute.
PUBLISHED_UNITS = {
    "E": Units([0.29], [nan], [0.7]),
    "PV": Units([0.14], [nan], [5.5]),
    "SST": Units([0.10], [nan], [14.8]),
}


def read_units(path: str | Path) -> dict[str, Units]:
    """A table of units by cell type.

    Args:
        path: a CSV file, a unit a line. Its first line names the columns: `cell_type` (E, PV, SST or VIP); of `osi`
            and `dsi` (in [0, 1], see `direction_selectivity`) and `rate_hz` (>= 0, mean over the gratings) at least
            one. An empty cell is a value that is not known; other columns are passed over.
    Raises: ValueError that names the file, the line and what would be right; OSError if it cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from error
    with StringIO(text, newline="") as file:
        table = csv.DictReader(file)
        columns = table.fieldnames or []
        known = [name for name in LARGEST if name in columns]
        if "cell_type" not in columns or not known:
            raise ValueError(
                f"{path}: the first line must name the columns cell_type and at least one of {', '.join(LARGEST)}; got "
                f"{', '.join(columns) or 'nothing'}"
            )
        meant = [column.strip().lower() for column in columns]
        if wrong := [c for c, name in zip(columns, meant, strict=True) if name in LARGEST and c != name]:
            raise ValueError(f"{path}: columns are called {', '.join(LARGEST)}, got {', '.join(map(repr, wrong))}")
        if twice := [name for name in ("cell_type", *LARGEST) if meant.count(name) > 1]:
            raise ValueError(f"{path}: the column {twice[0]} is there twice")
        found: dict[str, Units] = {}
        for row in table:
            where = f"{path}, line {table.line_num}"
            if (count := len([name for name in row if row[name] is not None])) != len(columns) or None in row:
                surplus = len(row.get(None) or [])
                raise ValueError(
                    f"{where} has {count - (None in row) + surplus} fields, but there are {len(columns)} columns "
                    "(fields are separated by commas, and decimals by points)"
                )
            if (kind := (row["cell_type"] or "").strip()) not in POPULATIONS:
                raise ValueError(f"{where}: cell_type must be {', '.join(POPULATIONS)}, got {kind!r}")
            units = found.setdefault(kind, Units([], [], []))
            for name, values in zip(LARGEST, units, strict=True):
                values.append(_number(where, name, row.get(name)))
    if not found:
        raise ValueError(f"{path} holds no unit, only the names of columns")
    return found


def _number(where: str, name: str, text: str | None) -> float:
    if not (text or "").strip():
        return nan
    try:
        value = nan if "_" in (text or "") else float(text or "")
    except ValueError:
        value = nan
    if not (0 <= value <= LARGEST[name] and value < inf):
        wanted = "in [0, 1]" if LARGEST[name] == 1 else "finite and >= 0"
        raise ValueError(f"{where}: {name} must be a number {wanted}, got {text!r}")
    return value
