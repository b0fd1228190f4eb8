"""What the network of a run costs to run, as the paper writes its circuit and folded."""

from eisnn.analysis import figures as fig
from eisnn.deploy import Cost, cost
from eisnn.nn import fold
from eisnn.report.opened import Opened
from eisnn.report.page import Figure, Key, Panel, Section, Table

IMAGES = 32  # that rates and effective operations are measured on


def costs(opened: Opened) -> Section:
    """Operations, memory and energy by layer and pathway, dense and effective."""
    if opened.unseen:
        return Section("Cost", opened.unseen)
    shown = opened.first(IMAGES)
    counted = {"as written": cost(opened.model, shown)}
    if opened.config.network.ablation is None:  # an ablated circuit has no folded form
        counted["folded"] = cost(fold(opened.model), shown)
    panels = []
    for name, each in counted.items():
        bars = {layer: counts for layer, counts in each.operations().items() if layer in (*opened.drawn, "readout")}
        svg = fig.svg(fig.operations, bars, size=(4.2, 1 + 0.35 * len(bars)))
        panels.append(Panel(svg, f"{name}: {_words(each)}", name))
    pathways = dict.fromkeys(p.pathway for each in counted.values() for p in each.pathways)
    reading = (
        "Synaptic operations of each layer by pathway. Pale: those of a machine that works on everything. Before them "
        "the effective ones, where neither source nor weight is 0. Folded, one signed kernel stands for E to E, E to I "
        "and the inhibition that is subtracted."
    )
    rows = [[name, *_totals(each)] for name, each in counted.items()]
    columns = ["network", "synapses, k", "dense, k", "effective, k", "of these additions, %", "divisions, k"]
    columns += ["updates, k", "memory, kB", "arithmetic, nJ", "memory traffic, nJ"]
    table_reading = (
        "An image over all time steps. An operation is an addition where all sources are 0 or 1, else a multiply-add. "
        "Memory: weights and membranes in float32. Energy is a model, of 45 nm and 32 bits, and of effective "
        "operations; eisnn.deploy.cost states it, and `eisnn cost` has each layer."
    )
    text = f"What an image costs, counted on {shown.shape[-4]} {opened.samples} at the network's own firing rates."
    return Section(
        "Cost",
        text + opened.left_out,
        [
            Figure("Operations by layer", panels, reading, [Key(p, fig.pathway_color(p)) for p in pathways]),
            Table("Totals", columns, rows, table_reading),
        ],
    )


def _words(counted: Cost) -> str:
    dense, effective = (sum(getattr(p, kind) for p in counted.pathways) for kind in ("dense", "effective"))
    return f"Bars of operations by layer: {dense / 1e3:,.0f} thousand dense and {effective / 1e3:,.0f} effective"


def _totals(counted: Cost) -> list[str]:
    found = counted.neurobench()
    synaptic = found["synaptic_operations"]
    effective = synaptic["Effective_MACs"] + synaptic["Effective_ACs"]
    synapses = sum(p.synapses for p in counted.pathways)
    thousands = [synapses, synaptic["Dense"], effective]
    neuron = [found["neuron_operations"]["divisions"], found["membrane_updates"], found["footprint"]]
    energy = [pj / 1e3 for pj in counted.energy(True)]
    share = f"{100 * synaptic['Effective_ACs'] / max(effective, 1):.0f}"
    return [*(f"{n / 1e3:,.1f}" for n in thousands), share, *(f"{n / 1e3:,.1f}" for n in neuron),
            *(f"{n:,.1f}" for n in energy)]  # fmt: skip
