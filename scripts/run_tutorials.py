"""Run the tutorials and keep their outputs: `python scripts/run_tutorials.py [docs/tutorials/NAME.ipynb ...]`."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"


def run(file: Path) -> nbformat.NotebookNode:
    """The notebook with new outputs; CellExecutionError if a cell fails."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute()
    return notebook


def main() -> None:
    for file in [Path(name) for name in sys.argv[1:]] or sorted(TUTORIALS.glob("*.ipynb")):
        start = time.monotonic()
        nbformat.write(run(file), file)
        print(f"{file}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
