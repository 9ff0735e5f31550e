"""Estimates with known values: an exponent with every kind of D*, a refusal, a floor, and one of no known kind."""

import math

from amscale.reporting.report.figures import all_figures
from amscale.reporting.report.gather import gather
from amscale.reporting.report.page import render
from amscale.reporting.report.palette import palette_of
from amscale.scaling import estimate as groups
from amscale.scaling.dstar import DStar
from amscale.scaling.estimate import Estimate, Hypothesis
from amscale.scaling.read_sweep import read_sweep
from amscale.scaling.sweep_fit import SweepFit

SHARED = {"convention": "N counts something", "objective": "an objective", "method": "a method", "used": 3}
DSTAR = (
    DStar(6000, 8000, 20000, 20000, (8000, 20000, 50000, 400000), (0.5, 0.03, 0.01, 0.001)),
    DStar(24000, 0, 8000, 8000, (8000, 20000, 50000, 400000), (0.03, 0.02, 0.01, 0.001)),
    DStar(96000, 400000, math.inf, None, (8000, 20000, 50000, 400000), (0.5, 0.3, 0.1, 0.05)),
)
EXPONENT = Estimate(
    "k of N = C·D^k at D*(N)",
    **SHARED,
    value=2.5,
    interval=(1.4, math.inf),
    hypotheses=(
        Hypothesis("k = 1 (Chinchilla)", 1.0, True, "outside"),
        Hypothesis("k = 2 (associative memory)", 2.0, False, "inside"),
    ),
    details={"dstar": list(DSTAR)},
)
REFUSED = Estimate("k of N = C·D^k at N_opt(D)", **SHARED, refusal="an interior minimum at 1 of 4 D <b>")
FLOOR = Estimate("least settled train loss", **SHARED, group=groups.FLOOR, value=0.25, interval=(0.24, 0.26))
CAPACITY = Estimate("memorised bits per parameter", **SHARED, group="a new group", value=3.61, interval=(3.5, 3.7))


def fit_of(folder, *estimates: Estimate) -> SweepFit:
    settings = {"count": "non_embedding", "threshold": 0.04}
    return SweepFit(table=read_sweep(folder), estimates=list(estimates), laws=[], settings=settings)


def page_of(folder, *estimates: Estimate) -> str:
    """The page's text alone, without the pictures beside it."""
    sweep = gather(folder, fit_of(folder, *estimates))
    charts = all_figures(sweep)
    return render(sweep, charts, palette_of(charts))
