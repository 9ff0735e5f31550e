"""Start one trial as a sweep starts it: on CPUs by a warm server, otherwise by `accelerate launch`."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from amscale.cluster.environment import rank_environment
from amscale.cluster.machine import Command, SupervisedCommand, launch_command
from amscale.cluster.network import LOOPBACK, Port
from amscale.cluster.warm_start import WarmCommand, can_start_warm
from amscale.planning.single_trial import SingleTrial, plan_single_trial


def run(config: Path, settings: list[str], kill: Callable[[SingleTrial], bool] = lambda _: False) -> SingleTrial:
    """Run the trial that a configuration and its overrides name, to its end; return its plan and its folder.

    Args:
        config: the configuration; the log is written beside it.
        settings: overrides.
        kill: asked again and again; once it is true all processes of the trial are killed.

    Raises:
        SystemExit: the trial fails; with the end of its log.
    """
    trial = plan_single_trial(str(config), settings)
    placement, log = trial.plan.placement, config.with_name("log.txt")
    command: Command = SupervisedCommand(30)
    if can_start_warm(placement):
        command = WarmCommand(30, "benchmark", placement)
    port = Port(LOOPBACK)
    line = launch_command(placement, [str(config), *settings], rank=0, address=LOOPBACK, port=port.number)
    command.start(line, rank_environment(placement), log)
    killed = False
    while (status := command.poll()) is None:
        if not killed and kill(trial):
            killed = True
            for process in psutil.process_iter(["cmdline"]):
                words = process.info["cmdline"] or []
                if "amscale.train" in words and settings[-1] in words:
                    process.kill()
        time.sleep(0.01)
    command.stop()
    port.release()
    if status and not killed:
        raise SystemExit(f"{' '.join(settings)}: status {status}\n{log.read_text(encoding='utf-8')[-2000:]}")
    return trial
