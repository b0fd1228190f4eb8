"""`eisnn report`: one HTML page about a run, with everything in it (the extra `report`).

opened     a run, its networks before and after training, and the images they are shown
overview, trials, classes, inside, experiments, maps, costs   sections, each a function of what was opened
page       how sections become HTML
"""

from pathlib import Path

from eisnn.data.progress import track
from eisnn.files import require_writable, write_atomically
from eisnn.report.opened import Opened, open_run

__all__ = ["report"]


def report(
    run: Path,
    against: Path | None = None,
    out: Path | None = None,
    images: int = 200,
    data_path: str | None = None,
) -> Path:
    """Write one self-contained HTML page about a run: how it went, what is inside, what it does under experiments.

    Args:
        run: Folder of the run, whose last checkpoint is opened, or a name that `eisnn.load` knows, such as demo-plus.
        against: Folder of another run on the same data to compare with, such as the batch-norm twin.
        out: The file to write, replaced if it is there; None is `report.html` in the run's folder, of a shared network
            `NAME-report.html` here.
        images: How many images of the evaluation split the network is shown.
        data_path: Where the data set is, if not where it was at training.
    Returns: the file.
    Raises: RunError for a folder that holds no run; CheckpointError, DataError; ValueError if `images` is less than 1,
        or the two runs were trained on different data.
    """
    from eisnn.data.tasks import Trials
    from eisnn.report import classes, costs, experiments, inside, maps, overview, trials
    from eisnn.report.page import render

    opened = open_run(run, images, data_path)
    other = None if against is None else open_run(against, images, data_path)
    if other is not None and _data(other) != _data(opened):
        raise ValueError(
            f"{against} saw other images than {run}: {_data(other)} and {_data(opened)}; compare runs on the same data"
        )
    shared = not opened.run.last.exists()
    usual = Path(f"{opened.run.folder.name}-report.html") if shared else opened.run.folder / "report.html"
    file = usual if out is None else out
    require_writable(file)
    if isinstance(opened.shown, Trials):
        first = [lambda: trials.trials(opened)]
    else:
        first = [lambda: maps.recordings(opened)] if opened.are_sequences else []
    makers = [
        lambda: overview.training(opened, other),
        *first,
        lambda: overview.layers(opened),
        lambda: inside.currents(opened),
        lambda: inside.balance(opened),
        lambda: inside.weights(opened),
        lambda: experiments.gain(opened, other),
        lambda: experiments.lesions(opened),
        lambda: classes.classes(opened),
        lambda: maps.feature_maps(opened, other),
        lambda: costs.costs(opened),
        lambda: overview.configuration(opened),
        lambda: overview.origin(opened),
    ]
    sections = [make() for make in track(makers, f"Report of {opened.name}", 1)]
    subtitle = f"{opened.network}, on {opened.dataset.name} ({len(opened.dataset.classes)} classes)"
    html = render(opened.name, subtitle, overview.facts(opened), overview.notes(opened), sections)
    write_atomically(file, html.encode())
    return file


def _data(opened: Opened) -> str:
    config = opened.config
    held = f", {config.data.hold_out:.0%} held out" if config.data.hold_out else ""
    return f"{opened.dataset.name} with {len(opened.dataset.classes)} classes at {config.data.image_size} pixels{held}"
