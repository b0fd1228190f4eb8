"""The pictures of the pages that show programs of the package: `python scripts/make_pictures.py` draws docs/report.png
and docs/explore.png anew, of networks in the package, by the browser of the tests (Debian's chromium, playwright).

docs/demo.png is what `make demo` draws: `cp runs/demo-*/demo.png docs/demo.png`.
"""

import sys
import tempfile
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import opened  # noqa: E402

from eisnn.explore import serve  # noqa: E402
from eisnn.report import report  # noqa: E402


def draw_report(folder: Path, width: int, height: int) -> None:
    """The top of the report of a network beside its twin."""
    with tempfile.TemporaryDirectory() as made:
        page_file = report(Path("demo-plus"), against=Path("demo-bn"), out=Path(made) / "report.html")
        with opened(page_file.as_uri(), viewport={"width": width, "height": height}) as page:
            page.screenshot(path=folder / "report.png")


def draw_explore(folder: Path, width: int, height: int) -> None:
    """The explorer after a tenth of the I neurons have been silenced."""
    server = serve("demo-plus")
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with opened(f"http://127.0.0.1:{server.server_port}/", viewport={"width": width, "height": height}) as page:
            page.wait_for_selector("#raster .points path", state="attached")
            before = page.inner_text("#rate")
            page.fill("#silenced-typed", "0.1")
            page.keyboard.press("Enter")
            page.wait_for_function("before => document.querySelector('#rate').innerText != before", arg=before)
            page.wait_for_timeout(1000)  # charts move
            page.screenshot(path=folder / "explore.png")
    finally:
        server.shutdown()


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    draw_explore(folder, 1400, 1000)
    draw_report(folder, 1400, 1700)
