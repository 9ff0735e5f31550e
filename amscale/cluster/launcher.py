"""Where a trial runs, and the exact command that starts one machine's ranks: `accelerate launch` with DeepSpeed."""

import os
import sys

from amscale.cluster import network
from amscale.files import packaged
from amscale.trials.records import Placement as Placement


def launch_command(placement: Placement, arguments: list[str], *, rank: int, address: str, port: int) -> list[str]:
    """Return the argument vector of `accelerate launch` for one machine.

    Args:
        placement: machines, processes and stage of the whole trial.
        arguments: arguments of `amscale.train`.
        rank: this machine's rank, 0 for the one at `address`.
        address: rendezvous address, machine 0's.
        port: rendezvous port on machine 0.
    """
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--use_deepspeed",
        "--deepspeed_config_file",
        str(packaged("launch") / f"zero{placement.zero_stage}.json"),
        # `standard` starts ranks by torch's own launcher; the default would be pdsh over ssh.
        "--deepspeed_multinode_launcher",
        "standard",
        "--num_machines",
        str(placement.machines),
        "--num_processes",
        str(placement.world_size),
        "--machine_rank",
        str(rank),
        "--main_process_ip",
        address,
        "--main_process_port",
        str(port),
        *network.rendezvous_options(rank, address, port),
        # Ranks write to the trial's log; torch's launcher would leave an empty folder in /tmp for every attempt.
        "--log_dir",
        os.devnull,
        "--mixed_precision",
        "bf16" if placement.precision == "bf16" else "no",
        "--dynamo_backend",
        "no",
        "--module",
        "amscale.train",
        *arguments,
    ]


def launch_environment(placement: Placement) -> dict[str, str]:
    """Return the environment variables that the ranks need, the same on every machine."""
    threads = str(placement.cpus_per_process)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    if placement.device == "cpu":
        # Without this DeepSpeed looks for an accelerator, and Accelerate for MPI.
        environment |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false", "CUDA_VISIBLE_DEVICES": ""}
    return environment
