"""One machine's share of one trial, without Ray: `accelerate launch`, guarded, until it ends.

    python -m amscale.cluster.run_machine RANK HEAD:PORT START SPEC PEER …

RANK is this machine's, HEAD:PORT the rendezvous on machine 0, START a name that all machines share. It runs on every
machine of the trial, and ends everything it started when it is told to (SIGTERM) or its standard input ends, as it does
when the connection breaks over which it was started. Ranks then write a checkpoint.

Exit status: 0 with a result; 75 when the ranks were told to end and wait to be continued; otherwise the launcher's.
"""

import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from amscale.cluster.launcher import ATTEMPT_VARIABLE, launch_command, launch_environment
from amscale.cluster.machine import Machine
from amscale.cluster.network import LOOPBACK, own_address
from amscale.errors import EXIT_PREEMPTED
from amscale.files import write_atomically
from amscale.trials.folder import TrialFolder
from amscale.trials.metrics import MetricsTail

_POLL_SECONDS = 0.5


def main(rank: int, head: str, start: str, spec: str, peers: Sequence[str]) -> int:
    """Run this machine's share to its end; returns the exit status."""
    folder = TrialFolder(Path(spec).parent)
    read = folder.read_spec()
    placement, launch = read.placement, read.settings["launch"]
    host, _, port = head.rpartition(":")
    if rank == 0:
        write_atomically(folder.start_file, start)
        folder.preempted.unlink(missing_ok=True)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda got, _: told.append(got))
    machine, news = Machine(launch["grace"]), MetricsTail(folder.metrics)
    machine.start(
        launch_command(placement, [spec], rank=rank, address=host, port=int(port)),
        launch_environment(placement) | {ATTEMPT_VARIABLE: start},
        own_address(peers) if placement.machines > 1 else LOOPBACK,
        str(folder.log_of(rank)),
    )
    silent = False
    while machine.poll() is None and not told and not silent:
        ready, _, _ = select.select([0], [], [], _POLL_SECONDS)
        if ready and not os.read(0, 4096):
            break
        silent = rank == 0 and news.read() > launch["stalled_after"]
    status = machine.poll()
    machine.stop()
    if status == 0 or folder.done():
        return 0
    if folder.preempted.exists():
        return EXIT_PREEMPTED
    why = f"no record for launch.stalled_after={launch['stalled_after']:g} s" if silent else f"exit status {status}"
    why = f"machine {rank}: {'told to end' if status is None and not silent else why}\n{folder.reason(rank)}"
    print(why, file=sys.stderr)
    if rank == 0 and (status is not None or silent):
        folder.add_failure(why)
    return status or 1


if __name__ == "__main__":
    _, _rank, _head, _start, _spec, *_peers = sys.argv
    sys.exit(main(int(_rank), _head, _start, _spec, _peers))
