"""Train one trial: what `accelerate launch` starts on every rank.

examples:
  accelerate launch --use_deepspeed ... --module amscale.train SPEC                  as the sweep starts it
  accelerate launch --use_deepspeed ... --module amscale.train SPEC SPEC ...         several of one shape, stacked
  accelerate launch --use_deepspeed ... --module amscale.train CONFIG key=value ...  by hand

`python -m amscale.plan CONFIG --commands` prints the whole command of every trial. CONFIG with its overrides must name
one cell. Everything is written into the trial's folder; result.json comes last.
"""

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from amscale.cluster.environment import clean_rank, fix_allocator
from amscale.cluster.supervisor import die_with_parent
from amscale.errors import EXIT_PREEMPTED, InputError
from amscale.streams import end_rank


def train(spec: str, *overrides: str, json: bool = False) -> None:
    """Train one trial on this rank, and end the process.

    Its exit status is 0 when the trial has a result (a diverged one included); 75 when it was asked to end by SIGTERM
    or SIGUSR1, wrote a checkpoint, and can be continued (0 in a sweep, which knows by the file `preempted`: torch's
    launcher reports any other status as a failure); 2 when it was refused, as it would be again; 1 when it failed. A
    rank that ran out of memory leaves the marker `out_of_memory` in the trial's folder.

    Args:
        spec: spec.yaml of a trial folder that a sweep has made, or a configuration.
        overrides: settings on top of a configuration, so that it names one cell; or further spec.yaml, of trials of
            the same shape that are trained together with stacked parameters.
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
    clean_rank()
    fix_allocator()
    from amscale.training.failures import is_out_of_memory, refusal, report_out_of_memory
    from amscale.training.resolve import resolve
    from amscale.training.run import run_trial
    from amscale.trials.attempt import REFUSED_MARK, AttemptReplaced, attempt_of_environment
    from amscale.trials.storage_errors import StorageError, storage_error_in

    store, status = None, 1
    try:
        try:
            rest = [str(o) for o in overrides]
            opened = [resolve(path, []) for path in (str(spec), *rest)] if _are_specs(spec, *rest) else []
            store, cell, placement, tokens = opened[0] if opened else resolve(str(spec), rest)
            if opened:
                from amscale.training.packed.run import run_pack

                status = run_pack(opened)
            elif cell.train.script:
                from amscale.training.script import run_script

                status = run_script(store, cell, placement, tokens)
            else:
                status = run_trial(store, cell, placement, tokens)
        except Exception as error:
            storage = error if isinstance(error, StorageError) else None
            refused = None if storage else refusal(error)
            # In a sweep the runner reads the log; by hand a person reads one line.
            if not attempt_of_environment() and (refused or storage):
                raise
            with suppress(OSError):  # the log is on a disk that may be full
                if not isinstance(error, InputError):
                    traceback.print_exc()
            if store is not None and is_out_of_memory(error):
                report_out_of_memory(store, error)
            elif store is not None and not refused:
                storage = storage_error_in(error, store.path)
            with suppress(OSError):
                if storage is not None:
                    print(storage, file=sys.stderr, flush=True)
                if refused:
                    print(f"{REFUSED_MARK}{refused}", file=sys.stderr, flush=True)
                    status = 2
    except AttemptReplaced as replaced:
        with suppress(OSError):
            print(replaced, file=sys.stderr, flush=True)
    if json and os.environ["RANK"] == "0":
        from amscale.cli import print_json

        result = store.read_result() if store and status == 0 else None
        print_json(result.to_tree() if result else {"state": "preempted" if status == EXIT_PREEMPTED else "failed"})
    if status == EXIT_PREEMPTED and attempt_of_environment():
        status = 0
    end_rank(status)  # everything is on disk and the process group is gone


def _are_specs(*paths: str) -> bool:
    return len(paths) > 1 and all(Path(path).name == "spec.yaml" for path in paths)


if __name__ == "__main__":
    from amscale.cli import run

    run(train, sys.argv[1:])
