"""Train one trial: what `accelerate launch` starts on every rank.

    accelerate launch --use_deepspeed … --module amscale.train SPEC            as the sweep starts it
    accelerate launch --use_deepspeed … --module amscale.train CONFIG key=value …   by hand, as `amscale.plan` prints it

CONFIG with its overrides must name one cell. Everything is written into the trial's folder; `result.json` comes last.
"""

import os
import sys

from amscale.cluster.guard import die_with_parent
from amscale.errors import InputError


def train(spec: str, *overrides: str) -> int:
    """Train one trial on this rank.

    Args:
        spec: `spec.yaml` of a trial folder that a sweep has made, or a configuration.
        overrides: `key=value`, with a configuration.

    Returns:
        0 when the trial has a result (a diverged one included); 75 when it was told to end by SIGTERM or SIGUSR1,
        wrote a checkpoint, and wants to be continued.
    """
    if "RANK" not in os.environ:
        raise InputError(
            "amscale.train is started by `accelerate launch --use_deepspeed`; `python -m amscale.plan --commands` "
            "prints the exact command of every trial"
        )
    # A rank whose launcher is killed must not live on.
    die_with_parent()
    from amscale.training.run import run_trial
    from amscale.training.spec import resolve

    return run_trial(*resolve(str(spec), [str(o) for o in overrides]))


if __name__ == "__main__":
    from amscale.cli import run

    run(train, sys.argv[1:])
