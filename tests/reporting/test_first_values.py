"""First values on a terminal: there before the intervals, completed one by one, and gone at the end."""

import io

import numpy as np
from rich.console import Console

from amscale.reporting.first_values import first_values
from amscale.scaling.laws import all_laws
from amscale.scaling.laws.compare import compare
from amscale.scaling.laws.law import Rows


def rows():
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e5, 1e8, 5)))
    noise = np.random.default_rng(0).normal(0, 1e-3, 25)
    return Rows(N, D, (1.5 + 60 / N**0.5 + 90 / D**0.4) * np.exp(noise), None, 6 * N * D)


def test_every_value_is_told_before_its_interval_and_every_interval_as_it_comes():
    told = []
    laws = {id: all_laws()[id] for id in ("chinchilla", "coupled")}
    fitted = [item.comparison for item in compare(rows(), 100, laws, progress=told.append)]
    assert all(law.value is not None and not law.intervals for law in told[0])
    known = [sum(bool(law.intervals) for law in laws) for laws in told]
    assert sorted(set(known)) == [0, 1, 2, 3, 4]  # one more at a time: two laws under two objectives
    assert known == sorted(known)
    assert told[-1] == [law for law in fitted if law.value is not None]


def test_a_terminal_shows_the_values_and_a_pipe_nothing():
    laws = {"chinchilla": all_laws()["chinchilla"]}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120, color_system=None)
        with first_values(console) as progress:
            (law, *_) = (item.comparison for item in compare(rows(), 100, laws, progress=progress))
        shown = console.file.getvalue()
        if terminal:
            assert shown.index("…") < shown.index(f"{law.intervals['k'][0]:.4g} to")
            assert f"{law.k:.4g}" in shown
        else:
            assert shown == ""
