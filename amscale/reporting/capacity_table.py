"""The memorised bits of a sweep as tables: of each N by every count of it, and of all N together."""

from collections.abc import Sequence
from typing import Any

from amscale.scaling.capacity import COUNTED, MORRIS, RESTS
from amscale.scaling.estimate import Estimate, interval_text, to_json_types
from amscale.settings import format_size

Rows = list[list[str]]

HEADINGS = ("N", "D", "seeds", "C, bits", *(f"by {count}" for count in COUNTED), "last fifth", "settings")
"""Columns of the table of each N; bits per parameter stand under the counts."""
COUNT_HEADINGS = ("N counted as", "bits per parameter", "95 % interval", "slope of ln C on ln N", "95 % interval")
NOTE = (
    "C: the most memorised bits over D, or the most seen where D ends before it (≥); by each count of N the bits per "
    f"parameter, {MORRIS} in Morris et al. 2025; last fifth: the share of C that came in the last fifth of the steps, "
    f"at rest below {RESTS:g}"
)


def details_of(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Return what the estimates of the capacity rest on, as fit.json holds it; empty where there are none."""
    return next((to_json_types(item.details) for item in estimates if item.details.get("capacities")), {})


def size_rows(details: dict[str, Any]) -> Rows:
    """Return a row for each N: where its memorised bits are the most, and these by parameter."""
    return [_row(item) for item in details.get("capacities") or () if item.get("sizes")]


def _row(item: dict[str, Any]) -> list[str]:
    best = item["memorised"].index(max(item["memorised"]))
    bits, mark = item["memorised"][best], "" if item["bits"] is not None else "≥ "
    late = item["late"][best]
    if bits <= 0:  # no train loss below the entropy
        return [format_size(item["N"]), "", "", "none", *("" for _ in COUNTED), "", ""]
    return [
        format_size(item["N"]),
        format_size(item["D"][best]),
        str(item["seeds"][best]),
        f"{mark}{bits:.4g}",
        *(f"{mark}{bits / item['sizes'][count]:.3g}" if item["sizes"][count] else "" for count in COUNTED),
        "" if late is None else f"{late:.2g}",
        item["settings"][best] if item["settings"] else "",
    ]


def count_rows(details: dict[str, Any]) -> Rows:
    """Return a row for each count of N: bits per parameter over all N whose C is known, and the slope."""
    return [
        [
            item["count"],
            f"{item['bits_per_parameter']:.4g}",
            interval_text(item["interval"]),
            "not determined" if item["slope"] is None else f"{item['slope']:.4g}",
            "" if item["slope"] is None else interval_text(item["slope_interval"]),
        ]
        for item in details.get("by_count") or ()
    ]
