"""amscale: grids of training runs over model size and data size, and what they imply.

    sweep = amscale.Sweep("quick.yaml")     # amscale.api.Sweep: plan, run, results, metrics, fit, report
    fit = amscale.fit_table("runs.csv")     # amscale.fitted.Fit: estimates by their ids

Importing this imports nothing else; names are imported when they are first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# From a checkout an older Python reads this file, and could not read the others.
if sys.version_info < (3, 11):  # noqa: UP036
    _reason = "amscale needs Python 3.11 or later, and {} is Python {}.{}; make an environment of a later one".format(
        sys.executable, *sys.version_info[:2]
    )
    if sys.argv[:1] == ["-m"]:  # `python -m amscale.…`
        sys.stderr.write(_reason + "\n")
        sys.exit(2)
    raise ImportError(_reason)

_MODULES = {
    "Sweep": "amscale.api",
    "Fit": "amscale.fitted",
    "fit_table": "amscale.fitted",
    "current_trial": "amscale.training.script",
    "Finding": "amscale.diagnosis.findings",
    "diagnose": "amscale.diagnosis.examine",
    "Experiment": "amscale.config",
    "Estimate": "amscale.scaling.estimate",
    "TrialResult": "amscale.trials.records",
    "TrialStatus": "amscale.reporting.terminal",
    "ClusterLost": "amscale.errors",
    "InputError": "amscale.errors",
    "Preempted": "amscale.errors",
    "TrialsFailed": "amscale.errors",
}

__all__ = [
    "ClusterLost",
    "Estimate",
    "Experiment",
    "Finding",
    "Fit",
    "InputError",
    "Preempted",
    "Sweep",
    "TrialResult",
    "TrialStatus",
    "TrialsFailed",
    "__version__",
    "current_trial",
    "diagnose",
    "fit_table",
]

if TYPE_CHECKING:
    from amscale.api import Sweep
    from amscale.config import Experiment
    from amscale.diagnosis.examine import diagnose
    from amscale.diagnosis.findings import Finding
    from amscale.errors import ClusterLost, InputError, Preempted, TrialsFailed
    from amscale.fitted import Fit, fit_table
    from amscale.reporting.terminal import TrialStatus
    from amscale.scaling.estimate import Estimate
    from amscale.training.script import current_trial
    from amscale.trials.records import TrialResult


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'amscale' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
