"""When a run validates, and on how many tokens, where the settings leave that to the run."""

import math
from dataclasses import dataclass

from amscale.config.schema import Experiment

EARLIER_EVERY = 100
EARLIER_TOKENS = 65536
"""What `auto` stands for where the run may not decide; the defaults of versions before it."""

_SHARE = 0.01
"""Share of a run's arithmetic that its validations take, the last one not counted."""
_LAST_SHARE = 0.01
"""Share that the last one may take, where that is more than EARLIER_TOKENS."""
_FORWARD = 1 / 3
"""Arithmetic of a token that is evaluated, of one that is trained on: there is no backward pass."""
_LEAST_TOKENS = 4096
"""Tokens of a sample at least: their mean loss is known to about 0.02 nats, at 1.3 nats of deviation a token."""
_FEWEST = 20
"""Validations that the size of the sample leaves room for."""
_MOST = 50
"""Validations of a run: more show nothing new of a curve."""


@dataclass(frozen=True)
class Validating:
    """When a run validates and on how much; all in what the settings say, or derived from them and the steps."""

    every: int
    """Steps between validations; the last step is validated too."""
    tokens: int
    """Tokens of the sample that every validation measures."""
    last_tokens: int
    """Tokens that are measured once the run has finished, at most: more than `tokens`, or as many."""
    spaced: bool
    """Whether a sample is evenly spaced over the documents, and not the first of them."""


def validating(cell: Experiment, steps: int) -> Validating:
    """Return when a trial of so many steps validates.

    `train.validate_every` and `train.validation_tokens` count where they are given. Otherwise a sample is as large as
    lets 20 validations of it take 1 % of the arithmetic, within what a mean loss needs (4,096 tokens, ± 0.02 nats; 64k,
    ± 0.005), and the last validation measures what 1 % more allows, or 64k tokens. With `train.patience`, which counts
    validations, and where trials share a beginning (`wsd` with nested data) the run may not decide: every 100 steps,
    on 64k tokens.

    Args:
        cell: settings of the trial.
        steps: of its run.
    """
    train = cell.train
    fixed = train.patience is not None or cell.order == "nested"
    trained = steps * train.batch_tokens
    spaced = not fixed and train.validation_tokens == "auto"
    if train.validation_tokens != "auto":
        tokens = last = train.validation_tokens
    elif fixed:
        tokens = last = EARLIER_TOKENS
    else:
        affordable = int(_SHARE * trained / _FORWARD / _FEWEST)
        tokens = min(max(affordable, _LEAST_TOKENS), EARLIER_TOKENS)
        last = max(EARLIER_TOKENS, int(_LAST_SHARE * trained / _FORWARD))
    if train.validate_every != "auto":
        every = train.validate_every
    elif fixed:
        every = EARLIER_EVERY
    else:
        every = max(math.ceil(tokens * _FORWARD / (_SHARE * train.batch_tokens)), math.ceil(steps / _MOST))
    return Validating(every, tokens, last, spaced)
