"""DeepSpeed is really engaged: what each rank holds under each stage, and that the stages train alike.

A trial is started by the very command that `plan --commands` prints, or warm, as a sweep starts it.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.commands import command, environment, wait_until
from helpers.devices import on_gpu

from amscale import config, models
from amscale.cluster.environment import rank_environment
from amscale.cluster.machine import launch_command
from amscale.cluster.network import LOOPBACK, Port
from amscale.cluster.warm_start import WarmCommand, WarmServer
from amscale.planning.memory import estimate_memory
from amscale.planning.single_trial import plan_single_trial
from amscale.trials.records import Placement, TrialResult

pytestmark = pytest.mark.slow


PRECISION = {"cpu": "fp32", "cuda": "bf16"}
"""What `auto` chooses."""
HOSTILE_ANSWERS = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config: {zero_stage: 3, gradient_accumulation_steps: 7, offload_optimizer_device: cpu, zero3_init_flag: true}
gpu_ids: "3"
num_processes: 8
num_machines: 4
main_process_ip: 10.9.8.7
mixed_precision: fp16
dynamo_config: {dynamo_backend: INDUCTOR}
use_cpu: false
debug: false
"""
OUTER_JOB = {
    **dict.fromkeys(["ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"], "1"),
    **{"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "PET_NNODES": "4"},
    **{"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"},
    **{"PMI_RANK": "2", "PMI_SIZE": "4", "PMIX_RANK": "2", "SLURM_PROCID": "2", "SLURM_NTASKS": "4"},
    **{"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "MASTER_ADDR": "10.9.8.7", "MASTER_PORT": "1"},
    **{"CUDA_VISIBLE_DEVICES": "7", "CUDA_LAUNCH_BLOCKING": "1", "OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "9"},
    **{"http_proxy": "http://10.9.8.7:1", "LOGLEVEL": "nonsense", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
}


def run_by_hand(tiny, storage, *settings: str, outer: dict[str, str] | None = None) -> tuple[dict, list[float]]:
    """Start one trial by the printed command; return its result and its training losses.

    Args:
        tiny: the configuration.
        storage: folder.
        settings: that name one trial.
        outer: what the shell has set besides.
    """
    cell = [f"storage={storage}", "model.size=6.6k", "data.size=8k", *settings]
    planned = command("plan", str(tiny), *cell, "--commands")
    assert planned.returncode == 0, planned.stderr
    (line,) = re.findall(r"^env .*$", planned.stdout, re.MULTILINE)
    shell = environment() | (outer or {})
    ran = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=600, env=shell, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return outcome(storage)


def outcome(storage: Path) -> tuple[dict, list[float]]:
    """Return the result of the only trial, and its training losses."""
    (path,) = storage.glob("tiny/trials/*/result.json")
    losses = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
    return json.loads(path.read_text()), [record["loss"] for record in losses if record["kind"] == "train"]


@pytest.fixture(scope="module")
def run_warm(tiny, tmp_path_factory):
    """Start one trial as a sweep on this machine's CPUs does; return its result and its training losses.

    The warm server serves the tests of this file, and imports once.
    """
    servers = {}

    def run(storage: Path, *settings: str, stage_started: int | None = None) -> tuple[dict, list[float]]:
        cell = [f"storage={storage}", "model.size=6.6k", "data.size=8k", *settings]
        placement = plan_single_trial(str(tiny), cell).plan.placement
        command, log = WarmCommand(60, "test_engine", placement), storage / "started.txt"
        servers[str(placement)] = WarmServer.of("test_engine", placement)
        storage.mkdir(parents=True, exist_ok=True)
        port = Port(LOOPBACK)
        started = placement if stage_started is None else replace(placement, zero_stage=stage_started)
        line = launch_command(started, [str(tiny), *cell], rank=0, address=LOOPBACK, port=port.number)
        command.start(line, rank_environment(placement), log)
        assert not command.problem
        wait_until(lambda: command.poll() is not None, 600, "an end of the ranks")
        status = command.poll()
        command.stop()
        port.release()
        assert status == 0, log.read_text()[-3000:]
        return outcome(storage)

    yield run
    for server in servers.values():
        server.release()


@pytest.fixture(scope="module")
def one_process(run_warm, tmp_path_factory):
    """The trial on one process, without sharding and dropout: every other placement must agree with it."""
    return run_warm(tmp_path_factory.mktemp("one"), "launch.zero_stage=0", "model.dropout=0")


@pytest.mark.parametrize(
    ("device", "stage"),
    [*(("cpu", stage) for stage in (0, 1, 2, 3)), *(on_gpu("cuda", stage, devices=2) for stage in (1, 2, 3))],
)
def test_two_processes_shard_as_the_stage_says_and_train_alike(device, stage, tiny, tmp_path, request):
    """On a CPU in fp32, on GPUs in bf16; each against one process of its kind."""
    settings = [f"launch.device={device}", "launch.micro_batch=4", "model.dropout=0"]
    two = [*settings, f"launch.zero_stage={stage}", "launch.processes_per_machine=2"]
    if device == "cpu":
        alone = request.getfixturevalue("one_process")[1]
        result, losses = request.getfixturevalue("run_warm")(tmp_path, *two)
    else:
        one = ["launch.zero_stage=1", "launch.processes_per_machine=1"]
        alone = run_by_hand(tiny, tmp_path / "one", *settings, *one)[1]
        result, losses = run_by_hand(tiny, tmp_path / "two", *two)
    engine = result["engine"]
    assert (engine["device"].partition(":")[0], engine["precision"]) == (device, PRECISION[device])
    assert (engine["distributed_type"], engine["world_size"], engine["zero_stage"]) == ("DEEPSPEED", 2, stage)
    assert engine["accumulation"] > 1
    total = result["parameters"]["total"]
    for held in engine["optimizer_elements"]:
        if stage == 0:
            assert held == total
        else:
            # Shards are padded to equal lengths, under stage 3 parameter by parameter.
            assert 0.5 * total <= held <= 0.55 * total
    # The same batches and the exact token mean, whatever the ranks and micro-batches: only rounding differs.
    assert losses == pytest.approx(alone, rel=2e-4 if device == "cpu" else 0.002)


def test_bf16_on_two_processes(tiny, tmp_path, one_process):
    result, losses = run_by_hand(
        tiny,
        tmp_path,
        "launch.zero_stage=2",
        "launch.processes_per_machine=2",
        "launch.precision=bf16",
        "launch.micro_batch=4",
        "model.dropout=0",
        outer={name: value for name, value in OUTER_JOB.items() if name not in ("PET_NNODES", "LOGLEVEL")},
    )
    assert result["engine"]["precision"] == "bf16"
    assert result["engine"]["accumulation"] > 1
    assert losses != pytest.approx(one_process[1], rel=1e-6)
    assert losses == pytest.approx(one_process[1], rel=0.002)


def test_an_outer_job_and_a_former_questionnaire_change_nothing(tiny, tmp_path, one_process):
    answers = tmp_path / "hf" / "accelerate" / "default_config.yaml"
    answers.parent.mkdir(parents=True)
    answers.write_text(HOSTILE_ANSWERS)
    outer = environment() | OUTER_JOB | {"HF_HOME": str(tmp_path / "hf")}

    def run(*arguments: str) -> str:
        line = [sys.executable, "-m", *arguments]
        ran = subprocess.run(line, stdin=hold, capture_output=True, text=True, timeout=600, env=outer, check=False)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        return ran.stdout

    settings = ["model.size=6.6k", "data.size=8k", "launch.zero_stage=0", "launch.micro_batch=4", "model.dropout=0"]
    read, write = os.pipe()  # the part of a host runs as long as its standard input is open
    with os.fdopen(read) as hold, os.fdopen(write, "w"):
        spec = run("amscale.planning.single_trial", "1", str(tiny), f"storage={tmp_path}", *settings).strip()
        run("amscale.cluster.run_machine", "0", "127.0.0.1:0", "attempt", spec, "localhost")
    folder = Path(spec).parent
    result = json.loads((folder / "result.json").read_text())
    assert result["engine"]["accumulation"] > 1
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert losses == pytest.approx(one_process[1], rel=2e-4)
    assert (folder / "log.txt").read_text().splitlines()[-1] == f"finished at step {result['steps']}"


def test_a_run_without_deepspeed_ends(tiny, tmp_path):
    """Accelerate without its DeepSpeed flags would train by plain DDP; nothing in a loss curve would tell."""
    line = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "1",
        "--module",
        "amscale.train",
        str(tiny),
    ]
    cell = [f"storage={tmp_path}", "model.size=1.7k", "data.size=4k"]
    ran = subprocess.run([*line, *cell], capture_output=True, text=True, timeout=600, env=environment(), check=False)
    assert ran.returncode != 0
    assert "started by `accelerate launch --use_deepspeed`" in ran.stdout + ran.stderr
    assert not list(tmp_path.glob("tiny/trials/*/result.json"))


def test_an_engine_that_is_not_what_was_asked_for_ends_the_run(run_warm, tmp_path):
    """The launcher starts stage 1, the settings promise stage 2."""
    with pytest.raises(AssertionError, match="zero_stage is 1, asked for 2"):
        run_warm(tmp_path, "launch.zero_stage=2", "launch.processes_per_machine=2", stage_started=1)
    assert not list(tmp_path.glob("tiny/trials/*/result.json"))


def test_memory_is_as_estimated(run_warm, tmp_path):
    """With all that glibc's allocator holds: one and a half times as much if ranks left it to its own rules."""
    settings = ["model.size=12.6M", "model.layers=4", "train.batch_tokens=4k", "train.steps=2", "probes.sequences=0"]
    settings += ["launch.zero_stage=2", "launch.processes_per_machine=2", "launch.micro_batch=16", "model.dropout=0"]
    result, _ = run_warm(tmp_path, *settings)
    result = TrialResult.from_json(json.dumps(result), tmp_path)
    placement = Placement(1, 2, 1, "cpu", 2, "fp32", 16, result.engine.accumulation)
    cell = config.parse(result.settings)
    shape = models.solve(cell.model, result.shape.vocabulary, result.shape.context)
    assert shape.parameters.total == result.parameters.total
    estimated = estimate_memory(shape, placement, cell.train).training
    assert estimated > 100e6
    assert result.memory.training_bytes == pytest.approx(estimated, rel=0.15)
