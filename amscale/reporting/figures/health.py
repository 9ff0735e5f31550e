"""Loss curves of a sweep on one scale: runs whose settings suit them lie on one curve."""

from amscale.reporting.axes import linear_axis
from amscale.reporting.chart import Chart, Panel, Series
from amscale.reporting.fit_data import FitData

_MOST_CURVES = 200


def collapsed_curves(data: FitData) -> Chart | None:
    """Build the train loss of every run over its own at the end, against the share of its steps, with the band."""
    found = data.fit.get("health")
    if not found:
        return None
    shares, leaving = found["shares"], found["leaving"]
    upper = [middle + half for middle, half in zip(found["median"], found["band"], strict=True)]
    lower = [middle - half for middle, half in zip(found["median"], found["band"], strict=True)]
    runs = list(zip(found["names"], found["curves"], strict=True))
    runs = sorted(runs, key=lambda run: run[0] in leaving)  # those that leave the band are drawn over the others
    shown = runs[-_MOST_CURVES:]
    series = [Series("band", [*shares, *shares[::-1]], [*upper, *lower[::-1]], "muted", opacity=0.2, fill=True)]
    for name, curve in shown:
        colour, text = ("accent", f"{name}: leaves by {leaving[name]:+.0%}") if name in leaving else ("muted", name)
        series.append(
            Series(name, shares, curve, colour, width=1.6 if name in leaving else 0.9, labels=[text] * len(shares))
        )
    series.append(Series("median", shares, found["median"], "ink", width=2.2))
    values = [value for _, curve in shown for value in curve]
    x, y = (
        linear_axis("share of the run's steps", shares),
        linear_axis("train loss over that at the end", [*values, *upper]),
    )
    caption = (
        "Train loss of each run over its own at the end, from 30 % of the steps on; the black line is the median of "
        "all. Runs whose learning rate, batch and decay suit them lie on one curve (arXiv 2507.02119). "
    )
    if leaving:
        caption += f"{len(leaving)} of {len(runs)} leave the band of the others, in colour."
    else:
        caption += f"None of {len(runs)} leaves the band."
    if len(shown) < len(runs):
        caption += f" {len(shown)} are drawn."
    return Chart("collapsed_curves", "Collapse of the loss curves", caption, [("", [Panel("", x, y, series)])])
