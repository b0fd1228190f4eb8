"""The page of `eisnn explore`: sliders on the left, what the network does on the right. Plotly draws in the browser."""

from statistics import fmean
from typing import Any

from dash import Dash, Input, Output, dcc, html

from eisnn.analysis import UndefinedDivision
from eisnn.explore.laboratory import Laboratory, Response, Setting

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # told apart by colour-blind readers (Okabe and Ito)

# Field of `Setting`, what it is called, its range, and whether it needs circuits.
SLIDERS = [
    ("subtractive", "Subtractive inhibition", 0.0, 2.0, True),
    ("divisive", "Divisive inhibition", 0.0, 2.0, True),
    ("silenced", "Silenced I neurons", 0.0, 1.0, True),
    ("contrast", "Contrast of the images", 0.0, 1.0, False),
    ("noise", "Noise on the images", 0.0, 0.5, False),
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
.control label { font-weight: 600; font-size: .95rem; }
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


def make_app(laboratory: Laboratory, title: str, subtitle: str) -> Dash:
    """The page as a Dash application. It loads nothing from elsewhere."""
    app = Dash(__name__, title=title, update_title="", serve_locally=True, index_string=INDEX)
    app.layout = _layout(laboratory, title, subtitle)
    names = [name for name, *_ in SLIDERS]

    @app.callback(
        Output("accuracy", "children"),
        Output("rate", "children"),
        Output("message", "children"),
        Output("rates", "figure"),
        Output("currents", "figure"),
        Input("layer", "value"),
        *(Input(name, "value") for name in names),
    )
    def update(layer: str, *values: float) -> tuple[Any, ...]:
        setting = Setting(**dict(zip(names, values, strict=True)))
        try:
            response, message = laboratory.respond(setting), ""
        except UndefinedDivision as error:
            response, message = None, f"There is no response: {error}"
        return _shown(laboratory, response, layer, message)

    @app.callback(*(Output(name, "value") for name in names), Input("reset", "n_clicks"), prevent_initial_call=True)
    def reset(_: int) -> list[float]:
        return [getattr(Setting(), name) for name in names]

    return app


def _layout(laboratory: Laboratory, title: str, subtitle: str) -> html.Div:
    controls: list[Any] = [_slider(*slider) for slider in SLIDERS if laboratory.has_inhibition or not slider[-1]]
    hidden = [dcc.Input(id=name, type="hidden", value=getattr(Setting(), name)) for name, *_, needs in SLIDERS if needs]
    if not laboratory.has_inhibition:
        controls.append(
            html.P(
                "This network has no E-I circuits, or ablated ones, so there is no inhibition to change.",
                className="reading",
            )
        )
        controls += hidden
    layers = [{"label": name, "value": name} for name in laboratory.layers]
    results = [
        html.Div(id="message", className="message", role="status"),
        html.Div(
            [
                _fact("accuracy", f"accuracy; intact {laboratory.intact.accuracy:.1f} %"),
                _fact("rate", f"spikes a neuron and step; intact {_mean_rate(laboratory.intact):.3f}"),
            ],
            className="facts",
        ),
        html.H2("Firing rate of each layer"),
        html.P("Bars: at this setting. Lines: the intact network, on the images as they are.", className="reading"),
        _chart("rates"),
        html.H2("Integrated current I_E"),
        html.P(
            "How often each value occurs in one layer, in units of the firing threshold. The outermost bins also count "
            "what lies beyond them.",
            className="reading",
        ),
        dcc.RadioItems(options=layers, value=laboratory.layers[0], id="layer", inline=True),
        _chart("currents"),
    ]
    reset = html.Button("Back to the intact network", id="reset")
    columns = html.Div([html.Div([*controls, reset]), html.Div(results)], className="columns")
    return html.Div([html.H1(title), html.P(subtitle, className="subtitle"), columns], className="page")


def _slider(name: str, label: str, low: float, high: float, needs_circuits: bool) -> html.Div:
    ends = {low: f"{low:g}", high: f"{high:g}"}
    slider = dcc.Slider(low, high, 0.05, value=getattr(Setting(), name), id=name, marks=ends, included=False)
    return html.Div([html.Label(label, htmlFor=name), slider], className="control")


def _chart(name: str) -> dcc.Graph:
    return dcc.Graph(id=name, config={"displayModeBar": False, "responsive": True}, style={"height": "300px"})


def _fact(name: str, label: str) -> html.Div:
    return html.Div([html.Div(id=name, className="value"), html.Div(label, className="label")], className="fact")


def _shown(laboratory: Laboratory, response: Response | None, layer: str, message: str) -> tuple[Any, ...]:
    """Accuracy, mean rate, message and the two charts."""
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
    threshold = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": ORANGE, "dash": "dot"},
    }
    return (
        "–" if response is None else f"{response.accuracy:.1f} %",
        "–" if response is None else f"{_mean_rate(response):.3f}",
        message,
        {"data": rates, "layout": _frame("", "spikes a neuron and step")},
        {"data": currents, "layout": _frame("I_E (threshold: 1)", "part of the values") | {"shapes": [threshold]}},
    )


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
