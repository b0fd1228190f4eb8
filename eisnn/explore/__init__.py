"""`eisnn explore`: change the inhibition of a trained network by sliders, in the browser (the extra `explore`).

laboratory   what is computed at each setting
page         how it looks, in Dash: its parts are served from this machine, and it asks for nothing from elsewhere
"""

import logging
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

__all__ = ["explore", "serve"]

HOST, LARGEST_PORT = "127.0.0.1", 65535


def serve(run: str | Path, *, images: int = 100, port: int = 0, data_path: str | None = None) -> "BaseWSGIServer":
    """A server of the page, on this machine alone; it answers as soon as `serve_forever()` is called.

    Args:
        run: folder of the run; its last checkpoint is opened.
        images: how many images of the evaluation split the network is shown at each setting.
        port: to listen at; 0 takes a free one, `server_port` says which.
        data_path: where the data is, if not where it was at training.
    Raises: RunError for a folder that holds no run; CheckpointError, DataError; ValueError for a network that cannot be
        looked into, or a port out of range; OSError if the port is taken.
    """
    if not 0 <= port <= LARGEST_PORT:
        raise ValueError(f"port must be in [0, {LARGEST_PORT}], got {port}")
    from eisnn.explore.laboratory import Laboratory
    from eisnn.explore.page import make_app
    from eisnn.report.opened import open_run

    # After the import of Dash, which so comes first to say that it is missing.
    from werkzeug.serving import make_server  # isort: skip

    opened = open_run(run, images, data_path)
    if opened.unseen:
        raise ValueError(f"{run} cannot be explored. {opened.unseen}")
    laboratory = Laboratory(opened.model, opened.images, opened.labels)
    subtitle = f"{opened.network}; {len(opened.labels)} {opened.split} of {opened.dataset.name}"
    app = make_app(laboratory, opened.dataset.classes, f"Explore {opened.name}", subtitle)
    app.server.config["TRUSTED_HOSTS"] = [HOST, "localhost"]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for each request
    try:
        return make_server(HOST, port, app.server, threaded=True)
    except SystemExit:  # its way to say so
        raise OSError(
            f"port {port} is in use by another program; give another one, or 0 for any that is free"
        ) from None


def explore(run: Path, images: int = 100, port: int = 0, browser: bool = True, data_path: str | None = None) -> None:
    """Open a page with sliders for the inhibition of a trained network; only this machine can see it. Ctrl-C ends it.

    Args:
        run: The run's folder, whose last checkpoint is opened, or a name that `eisnn.load` knows, such as demo-plus.
        images: How many images of the evaluation split the network is shown at each setting.
        port: Where to listen; 0 takes a free one.
        browser: Open the page in the browser.
        data_path: Where the data set is, if not where it was at training.
    """
    server = serve(run, images=images, port=port, data_path=data_path)
    address = f"http://{HOST}:{server.server_port}/"
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    if browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
