"""The page of `eisnn explore`: controls on the left, what the network does on the right. Plotly draws
in the browser."""

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from statistics import fmean
from typing import Any, NamedTuple

import torch
from dash import Dash, Input, Output, ctx, dcc, html
from PIL import Image
from torch import Tensor

from eisnn.explore.laboratory import RASTER, Laboratory, Response, Setting, indices
from eisnn.report.opened import picture_of

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # told apart by colour-blind readers (Okabe and Ito)

EVERY = "every layer"


class Slider(NamedTuple):
    """A field of `Setting`, what it is called, its range, where it starts, and whether it needs circuits."""

    name: str
    label: str
    low: float
    high: float
    start: float
    needs_circuits: bool = False


SLIDERS = [
    Slider("subtractive", "Subtractive inhibition", 0.0, 2.0, 1.0, True),
    Slider("divisive", "Divisive inhibition", 0.0, 2.0, 1.0, True),
    Slider("silenced", "Silenced I neurons", 0.0, 1.0, 0.0, True),
    Slider("contrast", "Contrast of images", 0.0, 1.0, 1.0),
    Slider("noise", "Noise on images", 0.0, 0.5, 0.0),
]

STYLE = """
:root { --Dash-Fill-Interactive-Strong: #0072B2; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
.page { max-width: 76rem; margin: 0 auto; padding: 1.2rem clamp(1rem, 3vw, 2.5rem) 3rem; }
h1 { font-size: 1.5rem; margin: 0; }
.subtitle { color: #57606a; margin: .2rem 0 1rem; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.5rem; }
@media (min-width: 60rem) { .columns { grid-template-columns: 20rem minmax(0, 1fr); gap: 3rem; } }
.control { margin-bottom: 1.1rem; }
.control label { font-weight: 600; font-size: .95rem; display: block; }
.control .head { display: flex; justify-content: space-between; align-items: center; gap: 1rem; }
.control input { font: inherit; box-sizing: border-box; padding: .2rem .4rem; border: 1px solid #8c959f;
  border-radius: .3rem; min-width: 0; }
.control .head label { flex: 1; font-size: .9rem; }
.where input { width: 100%; }
.where label { margin-top: .6rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: .6rem; margin: .6rem 0; }
.images figure { margin: 0; }
.images img { width: 100%; image-rendering: pixelated; display: block; border-radius: .2rem; }
.images figcaption { font-size: .8rem; line-height: 1.3; margin-top: .15rem; }
.right { color: #0072B2; } .wrong { color: #b34700; }
h3 { font-size: .95rem; margin: .8rem 0 0; }
.facts { display: flex; gap: 1rem; flex-wrap: wrap; margin-bottom: .5rem; }
.fact { background: #f6f8fa; border-radius: .5rem; padding: .6rem 1rem; min-width: 9rem; flex: 1; }
.fact .value { font-size: 1.6rem; font-weight: 650; }
.fact .label { font-size: .85rem; color: #57606a; }
.message { border-left: 4px solid #e69f00; background: #f6f8fa; padding: .6rem .9rem; margin-bottom: .8rem; }
.message:empty { display: none; }
h2 { font-size: 1.05rem; margin: 1rem 0 0; }
.reading { font-size: .9rem; color: #57606a; margin: 0; max-width: 46rem; }
button { font: inherit; padding: .35rem .9rem; border: 1px solid #8c959f; border-radius: .4rem; background: #fff; }
"""
INDEX = (
    '<!doctype html><html lang="en"><head>{%metas%}<title>{%title%}</title><link rel="icon" href="data:,">{%css%}'
    f"<style>{STYLE}</style>"
    "</head><body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"
)


def make_app(laboratory: Laboratory, classes: Sequence[str], title: str, subtitle: str) -> Dash:
    """The page as a Dash application. It loads nothing from elsewhere."""
    app = Dash(__name__, title=title, update_title="", serve_locally=True, index_string=INDEX)
    sliders = [slider for slider in SLIDERS if laboratory.inhibited or not slider.needs_circuits]
    sliders += [Slider(f"cells-{kind}", f"Output of {kind} cells", 0.0, 2.0, 1.0) for kind in laboratory.cells]
    app.layout = _layout(laboratory, sliders, title, subtitle)
    for slider in sliders:
        _follow(app, slider)

    @app.callback(
        Output("accuracy", "children"),
        Output("rate", "children"),
        Output("message", "children"),
        Output("images", "children"),
        Output("rates", "figure"),
        Output("currents", "figure"),
        Output("raster", "figure"),
        Input("layer", "value"),
        Input("changed", "value"),
        Input("neurons", "value"),
        Input("silent-e", "value"),
        *(Input(slider.name, "value") for slider in sliders),
    )
    def update(layer: str, changed: str, neurons: str | None, silent_e: str | None, *values: float) -> tuple[Any, ...]:
        given = dict(zip((slider.name for slider in sliders), values, strict=True))
        cells = {kind: given.pop(f"cells-{kind}") for kind in laboratory.cells}
        cells = {kind: factor for kind, factor in cells.items() if factor != 1}
        try:
            where = None if changed == EVERY else changed
            chosen, silent = indices(neurons), indices(silent_e)
            setting = Setting(**given, layer=where, neurons=chosen, silent_e=silent, cells=cells)
            response = laboratory.respond(setting)
        except ValueError as error:
            return _shown(laboratory, None, classes, layer, f"There is no response: {error}")
        return _shown(laboratory, response, classes, layer, "")

    @app.callback(
        Output("changed", "value"),
        Output("neurons", "value"),
        Output("silent-e", "value"),
        Input("reset", "n_clicks"),
        prevent_initial_call=True,
    )
    def reset(_: int) -> tuple[str, str, str]:
        return EVERY, "", ""

    return app


def _follow(app: Dash, slider: Slider) -> None:
    """A slider and its box of numbers show the same; what is no number in the range changes nothing."""
    name, typed = slider.name, f"{slider.name}-typed"

    @app.callback(
        Output(name, "value"),
        Output(typed, "value"),
        Input(name, "value"),
        Input(typed, "value"),
        Input("reset", "n_clicks"),
        prevent_initial_call=True,
    )
    def follow(slid: float, number: float | None, _: int) -> tuple[float, float]:
        value = slider.start if ctx.triggered_id == "reset" else slid
        if ctx.triggered_id == typed and number is not None:
            value = number
        return value, value


def _layout(laboratory: Laboratory, sliders: Sequence[Slider], title: str, subtitle: str) -> html.Div:
    options = [{"label": name, "value": name} for name in laboratory.layers]
    there = [{"label": EVERY, "value": EVERY}, *(o for o in options if o["value"] in laboratory.inhibited)]
    where = [
        html.Label("Inhibition changes in", htmlFor="changed"),
        dcc.Dropdown(there, EVERY, id="changed", clearable=False, searchable=False),
        html.Label("Silent I neurons of that layer", htmlFor="neurons"),
        dcc.Input(id="neurons", type="text", value="", debounce=True, placeholder="such as 0, 2, 5-8, then Enter"),
        html.Label("Silent E neurons (channels) of that layer", htmlFor="silent-e"),
        dcc.Input(id="silent-e", type="text", value="", debounce=True, placeholder="such as 0, 2, 5-8, then Enter"),
    ]
    hidden = {} if laboratory.inhibited else {"display": "none"}
    controls: list[Any] = [*map(_slider, sliders), html.Div(where, className="control where", style=hidden)]
    if not laboratory.inhibited and not laboratory.cells:
        absent = "This network has no E-I circuits, or ablated ones, so there is no inhibition to change."
        controls.append(html.P(absent, className="reading"))
    results = [
        html.Div(id="message", className="message", role="status"),
        html.Div(
            [
                _fact("accuracy", f"accuracy; intact {laboratory.intact.accuracy:.1f} %"),
                _fact("rate", f"spikes a neuron and step; intact {_mean_rate(laboratory.intact):.3f}"),
            ],
            className="facts",
        ),
        html.H2("What the network sees and says"),
        html.P("Some of the images at this setting, and the class that each is taken for.", className="reading"),
        html.Div(id="images", className="images"),
        html.H2("Firing rate of each layer"),
        html.P("Bars: at this setting. Lines: the intact network, on the images as they are.", className="reading"),
        _chart("rates"),
        html.H2("Inside one layer"),
        dcc.Dropdown(options, laboratory.layers[0], id="layer", clearable=False, searchable=False),
        html.H3("Integrated current I_E"),
        html.P(
            "How often each value occurs, in units of the firing threshold. The outermost bins also count what lies "
            "beyond them.",
            className="reading",
        ),
        _chart("currents"),
        html.H3("Spikes"),
        html.P(
            f"One mark for each spike of at most {RASTER} neurons, drawn by chance; the time steps of one image after "
            "those of the other.",
            className="reading",
        ),
        _chart("raster"),
    ]
    reset = html.Button("Back to the intact network", id="reset")
    columns = html.Div([html.Div([*controls, reset]), html.Div(results)], className="columns")
    return html.Div([html.H1(title), html.P(subtitle, className="subtitle"), columns], className="page")


def _slider(slider: Slider) -> html.Div:
    low, high = slider.low, slider.high
    marks = {low: f"{low:g}", high: f"{high:g}"}
    slide = dcc.Slider(
        low, high, 0.01, value=slider.start, id=slider.name, marks=marks, included=False, allow_direct_input=False
    )
    typed = dcc.Input(
        id=f"{slider.name}-typed",
        type="number",
        min=low,
        max=high,
        step="any",
        value=slider.start,
        debounce=True,
        style={"width": "7.5rem", "flex": "none"},
    )
    head = html.Div([html.Label(slider.label, htmlFor=f"{slider.name}-typed"), typed], className="head")
    return html.Div([head, slide], className="control")


def _chart(name: str) -> dcc.Graph:
    return dcc.Graph(id=name, config={"displayModeBar": False, "responsive": True}, style={"height": "300px"})


def _fact(name: str, label: str) -> html.Div:
    return html.Div([html.Div(id=name, className="value"), html.Div(label, className="label")], className="fact")


def _shown(
    laboratory: Laboratory, response: Response | None, classes: Sequence[str], layer: str, message: str
) -> tuple[Any, ...]:
    """Accuracy, mean rate, message, images and the three charts."""
    intact = laboratory.intact
    bars = {"type": "bar", "x": laboratory.layers, "y": [] if response is None else list(response.rates.values())}
    marks = {"type": "scatter", "mode": "markers", "x": laboratory.layers, "y": list(intact.rates.values())}
    rates = [
        bars | {"name": "this setting", "marker": {"color": BLUE}},
        marks | {"name": "intact", "marker": {"symbol": "line-ew", "size": 36, "line": {"width": 3, "color": GREY}}},
    ]
    edges = laboratory.edges[layer]
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    currents = [_histogram("intact", centres, intact.currents[layer], GREY, "dash")]
    if response is not None:
        currents.append(_histogram("this setting", centres, response.currents[layer], BLUE, "solid"))
    dotted = {"color": ORANGE, "dash": "dot"}
    threshold = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": dotted}
    raster, frame = _raster(None if response is None else response.spikes[layer])
    return (
        "–" if response is None else f"{response.accuracy:.1f} %",
        "–" if response is None else f"{_mean_rate(response):.3f}",
        message,
        [] if response is None else _images(response, laboratory.labels, classes),
        {"data": rates, "layout": _frame("", "spikes a neuron and step")},
        {"data": currents, "layout": _frame("I_E (threshold: 1)", "part of the values") | {"shapes": [threshold]}},
        {"data": raster, "layout": frame},
    )


def _images(response: Response, labels: Tensor, classes: Sequence[str]) -> list[html.Figure]:
    """The images looked at one by one, and what the network says."""
    found = []
    for k, (said, label) in enumerate(zip(response.answers.tolist(), labels.tolist(), strict=True)):
        right = said == label
        words = f"{classes[said]} ✓" if right else f"{classes[said]}, is {classes[label]}"
        picture = html.Img(src=_png(picture_of(response.seen, k)), alt=f"image {k + 1}: {classes[label]}")
        found.append(html.Figure([picture, html.Figcaption(words, className="right" if right else "wrong")]))
    return found


def _png(picture: Tensor) -> str:
    """`[C, H, W]` in [0, 1] as a data URL."""
    pixels = picture.expand(3, -1, -1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _raster(spikes: Tensor | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Spikes `[T, SHOWN, n]` as a chart: its data and its frame."""
    frame = _frame("image (each: its time steps)", "neuron")
    if spikes is None:
        return [], frame
    steps, count = spikes.shape[:2]
    t, image, neuron = spikes.nonzero().T
    mark = {"symbol": "square", "size": 3, "color": BLUE}
    x = (image * (steps + 1) + t).tolist()
    ticks = [k * (steps + 1) + (steps - 1) / 2 for k in range(count)]
    axis = frame["xaxis"] | {"tickvals": ticks, "ticktext": [str(k + 1) for k in range(count)], "showgrid": False}
    axis |= {"range": [-1, count * (steps + 1)], "zeroline": False}
    height = frame["yaxis"] | {"range": [-1, RASTER], "zeroline": False}
    data = {"type": "scatter", "mode": "markers", "x": x, "y": neuron.tolist(), "marker": mark, "hoverinfo": "skip"}
    return [data], frame | {"xaxis": axis, "yaxis": height}


def _mean_rate(response: Response) -> float:
    return fmean(response.rates.values())


def _histogram(name: str, x: list[float], y: list[float], color: str, dash: str) -> dict[str, Any]:
    line = {"shape": "hvh", "color": color, "dash": dash}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _frame(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
        "margin": {"l": 60, "r": 10, "t": 10, "b": 45},
        "legend": {"orientation": "h", "y": 1.15},
    }
