"""Train one trial: what `accelerate launch` starts on every rank.

    accelerate launch --use_deepspeed … --module amscale.train SPEC            as the sweep starts it
    accelerate launch --use_deepspeed … --module amscale.train CONFIG key=value …   by hand, as `amscale.plan` prints it

CONFIG with its overrides must name one cell. Everything is written into the trial's folder; `result.json` comes last.
"""

import os
import sys

from amscale.cluster.guard import die_with_parent
from amscale.errors import InputError


def train(spec: str, *overrides: str) -> None:
    """Train one trial on this rank, and end the process.

    Its exit status is 0 when the trial has a result (a diverged one included); 75 when it was told to end by SIGTERM or
    SIGUSR1, wrote a checkpoint, and wants to be continued.

    Args:
        spec: `spec.yaml` of a trial folder that a sweep has made, or a configuration.
        overrides: `key=value`, with a configuration.
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

    status = run_trial(*resolve(str(spec), [str(o) for o in overrides]))
    # Everything is on disk and the process group is gone. Left is the interpreter's shutdown around gloo's threads, in
    # which a rank now and then aborts: "terminate called without an active exception".
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    from amscale.cli import run

    run(train, sys.argv[1:])
