"""Train one trial: what `accelerate launch` starts on every rank.

examples:
  accelerate launch --use_deepspeed ... --module amscale.train SPEC                  as the sweep starts it
  accelerate launch --use_deepspeed ... --module amscale.train CONFIG key=value ...  by hand

`python -m amscale.plan CONFIG --commands` prints the whole command of every trial. CONFIG with its overrides must name
one cell. Everything is written into the trial's folder; result.json comes last.
"""

import os
import sys
import traceback
from contextlib import suppress

from amscale.cluster.supervisor import die_with_parent
from amscale.errors import EXIT_PREEMPTED, InputError


def train(spec: str, *overrides: str, json: bool = False) -> None:
    """Train one trial on this rank, and end the process.

    Its exit status is 0 when the trial has a result (a diverged one included); 75 when it was asked to end by SIGTERM
    or SIGUSR1, wrote a checkpoint, and can be continued; 1 when it failed. A rank that ran out of memory leaves the
    marker `out_of_memory` in the trial's folder.

    Args:
        spec: spec.yaml of a trial folder that a sweep has made, or a configuration.
        overrides: settings on top of a configuration, so that it names one cell.
        json: rank 0 prints one JSON document on standard output, the result or {"state": "preempted" | "failed"};
            everything else goes to standard error.
    """
    if "RANK" not in os.environ:
        raise InputError(
            "amscale.train is started by `accelerate launch --use_deepspeed`; `python -m amscale.plan --commands` "
            "prints the exact command of every trial"
        )
    # A rank whose launcher is killed must not live on.
    die_with_parent()
    from amscale.training.run import is_out_of_memory, report_out_of_memory, resolve, run_trial
    from amscale.trials.attempt import AttemptReplaced
    from amscale.trials.storage_errors import StorageError, storage_error_in

    store, cell, placement, tokens = resolve(str(spec), [str(o) for o in overrides])
    status = 1
    try:
        try:
            status = run_trial(store, cell, placement, tokens)
        except Exception as error:
            if isinstance(error, InputError) and not isinstance(error, StorageError):
                raise
            with suppress(OSError):  # the log is on a disk that may be full
                traceback.print_exc()
            if is_out_of_memory(error):
                report_out_of_memory(store, error)
            elif (failure := storage_error_in(error, store.path)) is not None:
                with suppress(OSError):
                    print(failure, file=sys.stderr, flush=True)
    except AttemptReplaced as replaced:
        with suppress(OSError):
            print(replaced, file=sys.stderr, flush=True)
    if json and os.environ["RANK"] == "0":
        from amscale.cli import print_json

        result = store.read_result() if status == 0 else None
        print_json(result.to_tree() if result else {"state": "preempted" if status == EXIT_PREEMPTED else "failed"})
    # Everything is on disk and the process group is gone. Left is the interpreter's shutdown around gloo's threads, in
    # which a rank now and then aborts ("terminate called without an active exception"), or waits for another rank.
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    from amscale.cli import run

    run(train, sys.argv[1:])
