"""Estimates with known values: an exponent with every kind of D*, one not determined, a floor, and a new group."""

import math
from dataclasses import replace
from functools import cache

import numpy as np

from amscale.reporting.chart import palette_of
from amscale.reporting.figures import report_charts
from amscale.reporting.page import render_page
from amscale.reporting.report_data import read_report_data
from amscale.scaling import estimate as groups
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.dstar import DStar
from amscale.scaling.estimate import Estimate, HypothesisTest
from amscale.scaling.isoflop import exponents_from_budgets
from amscale.scaling.optima import exponent_from_contours
from amscale.scaling.points import Point, PointTable
from amscale.scaling.reading import read_sweep

SHARED = {"convention": "N counts something", "objective": "an objective", "method": "a method", "used": 3}
DSTAR = (
    DStar(6000, 8000, 20000, 20000, (8000, 20000, 50000, 400000), (0.5, 0.03, 0.01, 0.001)),
    DStar(24000, 0, 8000, 8000, (8000, 20000, 50000, 400000), (0.03, 0.02, 0.01, 0.001)),
    DStar(96000, 400000, math.inf, None, (8000, 20000, 50000, 400000), (0.5, 0.3, 0.1, 0.05)),
)
EXPONENT = Estimate(
    id="k_dstar",
    estimand="k of N = C·D^k at D*(N)",
    **SHARED,
    value=2.5,
    interval=(1.4, math.inf),
    tests=(
        HypothesisTest(name="k = 1 (Chinchilla)", value=1.0, rejected=True, how="outside"),
        HypothesisTest(name="k = 2 (associative memory)", value=2.0, rejected=False, how="inside"),
    ),
    details={"dstar": list(DSTAR)},
)
UNDETERMINED = Estimate(
    id="k_nopt", estimand="k of N = C·D^k at N_opt(D)", **SHARED, reason="an interior minimum at 1 of 4 D <b>"
)
FLOOR = Estimate(
    id="floor_train_settled",
    estimand="least settled train loss",
    **SHARED,
    group=groups.FLOOR,
    value=0.25,
    interval=(0.24, 0.26),
)
CAPACITY = Estimate(
    id="capacity_bits_per_parameter",
    estimand="memorised bits per parameter",
    **SHARED,
    group="a new group",
    value=3.61,
    interval=(3.5, 3.7),
)


@cache
def surfaces() -> tuple[Estimate, ...]:
    """Return iso-FLOP and iso-loss of Chinchilla's law with N ∝ D^1, and the collapse of a loss of N/D²."""

    def law(N: float, D: float) -> float:
        return 1.7 + 400 * N**-0.35 + 900 * D**-0.35

    sizes = [(C, math.sqrt(C / 120) * share) for C in np.geomspace(1e18, 1e21, 7) for share in np.geomspace(0.2, 5, 7)]
    budgets = [Point("p", N, C / (6 * N), law(N, C / (6 * N)), flops=C) for C, N in sizes]
    surface = [Point("p", N, D, law(N, D)) for N in np.geomspace(1e7, 1e9, 6) for D in np.geomspace(1e8, 1e10, 6)]
    grid = [(N, D) for N in np.geomspace(1e6, 1e8, 5) for D in np.geomspace(3e7, 3e8, 5)]
    collapsed = [Point("p", N, D, 2 + 0.5 * math.tanh(math.log(N / D**2) + 20)) for N, D in grid]
    return (
        *exponents_from_budgets(PointTable("made", "N", budgets), (1, 2)),
        exponent_from_contours(PointTable("made", "N", surface), (1, 2)),
        exponent_from_collapse(PointTable("made", "N", collapsed), (1, 2), 100),
    )


def fit_of(folder, *estimates: Estimate) -> BaseFit:
    settings = {"count": "non_embedding", "threshold": 0.04}
    return BaseFit(table=read_sweep(folder), estimates=list(estimates), laws=[], settings=settings)


def page_of(folder, *estimates: Estimate, **changes) -> str:
    """Return the HTML of the page of a fit with `changes`; the figures' files are not written."""
    report = read_report_data(folder, replace(fit_of(folder, *estimates), **changes))
    charts = report_charts(report)
    return render_page(report, charts, palette_of(charts))
