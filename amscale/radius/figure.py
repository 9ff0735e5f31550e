"""The figure of a radius experiment: a row per place, with the paper's histograms, the controls and the slopes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from amscale.radius.distances import PERCENT, VectorDistances

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHADES = {25: "#c6dbef", 50: "#6baed6", 75: "#2878b8", 100: "#08306b"}
_COLOURS = {
    "trained": "#08306b",
    "random weights": "#d95f02",
    "shuffled": "#1b9e77",
    "gaussian": "#9467bd",
    "normalised": "#7f7f7f",
}
_NAMES = {
    "trained": "trained",
    "random weights": "random weights",
    "shuffled": "coordinates shuffled",
    "gaussian": "Gaussian of the same covariance",
    "normalised": "trained, scaled to √n",
}
_INK, _QUIET, _ACCENT = "#222222", "#8a8a8a", "#c62828"
_HEADING = 0.62
"""Inches above the panels, for title and subtitle."""
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def draw(title: str, subtitle: str, measured: list[VectorDistances], labels: dict[str, str]) -> "Figure":
    """Draw the figure.

    Args:
        title: the question and its answer.
        subtitle: model, corpus and sample.
        measured: the vectors of every place and their controls.
        labels: name of each place, for a reader.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    places = list(dict.fromkeys(one.place for one in measured))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13.5, _HEADING + 3.9 * len(places)), layout="constrained")
        rows = figure.subplots(len(places), 3, squeeze=False, width_ratios=(1.15, 1.15, 1))
        for axes, place in zip(rows, places, strict=True):
            here = [one for one in measured if one.place == place and one.rows]
            trained = here[0]
            _histograms(axes[0], trained)
            axes[0].set_title(f"{labels[place]}: {trained.dimension} coordinates", fontweight="bold", pad=12)
            _controls(axes[1], here)
            _slopes(axes[2], here)
        rows[0][1].set_title("Beside the controls", pad=12)
        rows[0][2].set_title("Against the size of the sample", pad=12)
        above = _HEADING / figure.get_figheight()
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - above))  # type: ignore[union-attr,call-arg]
        figure.text(0.008, 1 - 0.16 * above, title, va="top", fontsize=13, fontweight="bold", color=_INK)
        figure.text(0.008, 1 - 0.56 * above, subtitle, va="top", fontsize=10.5, color="#555555")
    return figure


def _steps(axes: "Axes", values: np.ndarray, edges: np.ndarray, **style: Any) -> None:
    density, _ = np.histogram(values, edges, density=True)
    axes.stairs(density, edges, **style)


def _histograms(axes: "Axes", trained: VectorDistances) -> None:
    """Draw the paper's figure: distances in 25, 50, 75 and 100 % of the vectors, and 2r*."""
    everything = np.concatenate(list(trained.distances.values()))
    top = float(np.quantile(everything, 0.998))
    edges = np.linspace(min(0.0, float(everything.min())), top, 61)
    for percent in PERCENT:
        if percent in trained.distances:
            median = float(np.median(trained.distances[percent]))
            name = f"{percent} %, median {median:.3g}"
            _steps(axes, trained.distances[percent], edges, color=_SHADES[percent], linewidth=1.8, label=name)
    _mark_r_star(axes, 2 * trained.r_star, "2r*")
    axes.set_xlim(0, max(top, 2.3 * trained.r_star))
    axes.set_xlabel("distance to the nearest neighbour")
    axes.set_ylabel("density")
    axes.set_yticks([])
    legend = axes.legend(title="of the vectors", alignment="left", handlelength=1.2, frameon=True)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.85)


def _mark_r_star(axes: "Axes", place: float, name: str) -> None:
    axes.axvline(place, color=_ACCENT, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{name} = {place:.3g}",
        (place, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(3, 2),
        textcoords="offset points",
        color=_ACCENT,
        fontsize=8.5,
    )


def _controls(axes: "Axes", measured: list[VectorDistances]) -> None:
    """Draw distances among all vectors of the trained model and of each control, on a logarithmic axis."""
    least = min(float(np.quantile(one.distances[100], 0.002)) for one in measured)
    most = max(float(np.quantile(one.distances[100], 0.998)) for one in measured)
    edges = np.geomspace(0.85 * least, 1.18 * most, 91)
    for one in measured:
        # Density on the logarithmic axis, so that areas are shares of the vectors.
        counts, _ = np.histogram(one.distances[100], edges)
        share = counts / len(one.distances[100])
        strong = one.vectors == "trained"
        style: dict[str, Any] = {"color": _COLOURS[one.vectors], "linewidth": 2.0 if strong else 1.5}
        axes.stairs(share, edges, label=_NAMES[one.vectors], **style)
        axes.stairs(share, edges, color=style["color"], fill=True, alpha=0.18 if strong else 0.08)
    _mark_r_star(axes, 2 * measured[0].r_star, "2r*")
    axes.set_xscale("log")
    axes.set_xlim(min(edges[0], 1.6 * measured[0].r_star), max(edges[-1], 2.6 * measured[0].r_star))
    _decade_ticks(axes.xaxis)
    axes.set_xlabel("distance to the nearest neighbour")
    axes.set_ylabel("share of the vectors")
    axes.set_yticks([])
    axes.legend(handlelength=1.2)


def _slopes(axes: "Axes", measured: list[VectorDistances]) -> None:
    """Draw the mean distance against the size of the sample, with the dimension that each slope implies."""
    for one in measured:
        colour = _COLOURS[one.vectors]
        means = [row["distance_mean"] for row in one.rows]
        implied = f"dimension {one.implied.dimension:.3g}" if one.implied else "no dimension"
        style: dict[str, Any] = {"linewidth": 2.0 if one.vectors == "trained" else 1.3, "markersize": 4}
        axes.plot(one.sizes, means, "o-", color=colour, label=f"{_NAMES[one.vectors]}: {implied}", **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 2:  # a narrow range on a logarithmic axis gets no ticks
        axes.set_ylim(low / 1.25, high * 1.25)
    axes.set_ylim(top=axes.get_ylim()[1] * (axes.get_ylim()[1] / axes.get_ylim()[0]) ** 0.45)
    _decade_ticks(axes.yaxis)
    _decade_ticks(axes.xaxis)
    axes.set_xlabel("vectors in the sample")
    axes.set_ylabel("mean distance")
    axes.legend(handlelength=1.4, loc="upper right", fontsize=8.5)


def _decade_ticks(axis: Any) -> None:
    """Put ticks at 1, 2 and 5 of each decade, or at 1 alone where these would run into each other, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
