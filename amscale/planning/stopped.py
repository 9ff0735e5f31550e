"""The result of a trial that was stopped early: a hopeless value of a tuned setting, which no run is to repeat."""

from typing import TYPE_CHECKING, Any

from amscale import __version__
from amscale.models import FLOPS_FORMULA
from amscale.trials.identity import settings_of
from amscale.trials.records import (
    FORMAT,
    ResultData,
    ResultFlops,
    ResultLosses,
    ResultParameters,
    ResultShape,
    TrialResult,
)

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan


def stopped_result(trial: "TrialPlan", reason: str, report: dict[str, Any]) -> TrialResult:
    """Return the result of a trial that was stopped early.

    Args:
        trial: as planned.
        reason: why it was stopped.
        report: its newest numbers: step, loss, tokens, validation loss and the least of them.
    """
    steps = int(report.get("step") or 0)
    batch = trial.step_plan.sequences * trial.step_plan.mean_tokens
    per_token = trial.flops / (trial.steps * batch)
    tokens = report.get("tokens", steps * batch)
    return TrialResult(
        format=FORMAT,
        trial=trial.identity,
        label=trial.label,
        state="stopped_early",
        reason=reason,
        seed=trial.cell.seed,
        steps=steps,
        shape=ResultShape(**trial.shape.as_dict()),
        parameters=ResultParameters(**trial.shape.parameters.as_dict()),
        flops=ResultFlops(formula=FLOPS_FORMULA, per_token=per_token, total=per_token * tokens),
        data=ResultData(corpus=trial.cell.data.corpus, unique_tokens=trial.D, tokens_seen=tokens),
        losses=ResultLosses(
            validation_last=report.get("validation_loss"),
            validation_least=report.get("validation_least"),
            train_last=report.get("loss"),
        ),
        versions={"amscale": __version__},
        settings=settings_of(trial.cell),
    )
