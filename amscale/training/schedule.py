"""The learning rate as a function of the step alone, so that a resumed run needs no scheduler state."""

import math

from amscale.config import TrainSettings


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Learning rate of optimiser step `step` (the first is 1) of a run of `steps`.

    Linear warm-up to the peak, then by `schedule`: cosine or linear decay to the final rate, constant, or
    warm-up-stable-decay (constant, then linear decay over the last share `decay` of the steps).
    """
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    if step < warmup:
        return settings.learning_rate * step / warmup
    final = settings.final_learning_rate
    if settings.schedule == "constant":
        share = 1.0
    elif settings.schedule == "wsd":
        start = max(warmup, steps * (1 - settings.decay))
        share = 1.0 if step <= start else final + (1 - final) * (steps - step) / max(steps - start, 1)
    else:
        left = (steps - step) / max(steps - warmup, 1)
        share = final + (1 - final) * (left if settings.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
    return settings.learning_rate * share
