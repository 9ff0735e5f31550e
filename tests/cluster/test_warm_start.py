"""Ranks that are forked from a server: the same as those of `accelerate launch`, and as separate from each other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.commands import environment, processes_naming, recorded_losses, wait_until

from amscale.cluster import warm_server
from amscale.cluster.environment import rank_environment
from amscale.cluster.machine import SupervisedCommand, launch_command
from amscale.cluster.network import Port
from amscale.cluster.tune_trial import RayMachines
from amscale.cluster.warm_start import WarmCommand, WarmServer
from amscale.planning.single_trial import plan_single_trial
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement

PATIENCE = 600.0
TWO_RANKS = Placement(1, 2, 1, "cpu", 1, "bf16", micro_batch=1, accumulation=1)

TELL = """
import json, os, signal, sys, torch, torch.distributed as group
from amscale.streams import end_rank
group.init_process_group("gloo")
rank = torch.tensor([float(group.get_rank())])
group.all_reduce(rank)
told = {
    "environment": dict(os.environ),
    "arguments": sys.argv[1:],
    "folder": os.getcwd(),
    "summed": float(rank),
    "files": sorted(os.readlink(f"/proc/self/fd/{number}") for number in range(3)),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
    "blocked": [line for line in open("/proc/self/status") if line.startswith("SigBlk")],
    "killed first": open("/proc/self/oom_score_adj").read(),
    "session": os.getsid(0) == os.getpid(),
}
with open(f"{sys.argv[1]}{os.environ['RANK']}.json", "w") as file:
    json.dump(told, file)
end_rank(0)
"""
END = """
import os, sys, time
open(f"up{os.environ['RANK']}", "w").close()
if os.environ["RANK"] == "1":
    how, argument = sys.argv[1].split()
    os._exit(int(argument)) if how == "exit" else os.kill(os.getpid(), int(argument))
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the ranks' modules lie."""
    (tmp_path / "tell.py").write_text(TELL)
    (tmp_path / "end.py").write_text(END)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The name of a sweep, whose server ends with the tests of this file."""
    name = str(tmp_path_factory.mktemp("sweep"))
    yield name
    for server in list(WarmServer._of_this_process.values()):
        server.release()
    assert not processes_naming(name)


def start(command, folder, module: str, argument: str) -> None:
    port = Port("127.0.0.1")
    line = launch_command(TWO_RANKS, [argument], rank=0, address="127.0.0.1", port=port.number)
    line[line.index("amscale.train")] = module
    command.start(line, rank_environment(TWO_RANKS) | {"GIVEN": argument}, folder / "log.txt")


def ended(command) -> int:
    wait_until(lambda: command.poll() is not None, PATIENCE, "an end of the ranks")
    status = command.poll()
    command.stop()
    return status


@pytest.mark.slow
def test_ranks_have_what_the_launcher_would_give_them(folder, sweep, monkeypatch):
    monkeypatch.setenv("OF_THE_SERVER", "1")
    warm = WarmCommand(5.0, sweep, TWO_RANKS)
    WarmServer.of(sweep, TWO_RANKS).connect().close()
    monkeypatch.delenv("OF_THE_SERVER")
    for name, command in (("warm", warm), ("cold", SupervisedCommand(5.0))):
        start(command, folder, "tell", name)
        assert ended(command) == 0, (folder / "log.txt").read_text()
    assert warm.problem == ""
    told = {
        name: [json.loads((folder / f"{name}{rank}.json").read_text()) for rank in (0, 1)] for name in ("warm", "cold")
    }
    for one, other in zip(told["warm"], told["cold"], strict=True):
        assert (one.pop("arguments"), other.pop("arguments")) == (["warm"], ["cold"])
        # Of one attempt: the port, and the file in which torch's launcher looks for a traceback. The others are set by
        # torch._dynamo, which every rank imports in the end, and by mlflow, where a test before has imported it here.
        once = ("GIVEN", "MASTER_PORT", "TORCHELASTIC_ERROR_FILE")
        for differs in (*once, "TORCHINDUCTOR_CACHE_DIR", "_MLFLOW_TELEMETRY_SESSION_ID"):
            one["environment"].pop(differs, None), other["environment"].pop(differs, None)
        assert one.pop("environment") == other.pop("environment")
        assert one == other
        assert one["summed"] == 1


@pytest.mark.slow
def test_a_server_imports_what_its_trials_use():
    """Counted by modules: what every rank imports is there, and what only others import is not."""
    code = """
import gc, socket, sys
from amscale.cluster.warm_server import _Server
server = _Server(socket.socket(), [], 1)
server.preload({"vanilla", "question_formation"})
assert not server._problem, server._problem
assert gc.isenabled()
print(*sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    found = set(ran.stdout.splitlines()[-1].split())
    every = {
        "torch._dynamo",
        "deepspeed",
        "amscale.training.run",
        "amscale.models.networks.vanilla",
        "amscale.data.draft",
    }
    others = {
        "torch._inductor.compile_fx",
        "transformers.models.gpt2.modeling_gpt2",
        "amscale.models.networks.gpt2",
        "amscale.models.hub_costs",
        "amscale.data.corpora.kjv",
    }
    assert every <= found
    assert not others & found


@pytest.mark.slow
@pytest.mark.parametrize(("how", "status"), [("exit 3", 3), ("kill 9", 137)])
def test_a_rank_that_ends_takes_the_others_along_and_nothing_else(folder, sweep, how, status):
    bystander = WarmCommand(5.0, sweep, TWO_RANKS)
    start(bystander, folder, "end", "exit 0")
    wait_until((folder / "up1").exists, PATIENCE, "a start of the ranks")
    (server,) = servers(sweep)
    command = WarmCommand(5.0, sweep, TWO_RANKS)
    start(command, folder, "end", how)
    assert ended(command) == status
    assert bystander.poll() is None
    assert servers(sweep) == [server]
    bystander.stop()
    assert not ranks(folder)


def ranks(folder) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline", "cwd"])
    return [p for p in found if p.info["cwd"] == str(folder) and "end" in (p.info["cmdline"] or [])]


def servers(sweep: str) -> list[psutil.Process]:
    return [p for p in processes_naming(sweep) if warm_server.__name__ in p.info["cmdline"]]


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_its_trials_and_another_follows(folder, sweep):
    command = WarmCommand(5.0, sweep, TWO_RANKS)
    start(command, folder, "end", "exit 0")
    wait_until((folder / "up1").exists, PATIENCE, "a start of the ranks")
    (server,) = servers(sweep)
    server.kill()
    wait_until(lambda: not servers(sweep), PATIENCE, "an end of the server")
    next_one = WarmCommand(5.0, sweep, TWO_RANKS)
    start(next_one, folder, "end", "exit 3")
    assert next_one.problem == ""
    assert ended(next_one) == 3
    assert command.poll() is None
    command.stop()


@pytest.mark.slow
def test_an_owner_that_is_killed_takes_server_and_ranks_along(folder):
    """A server that has started afresh after its last trial is owned as before."""
    source = f"""
import pathlib, sys, time
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
from test_warm_start import *
from amscale.cluster import warm_start
warm_start.MOST_TRIALS = 1
command = WarmCommand(5.0, {str(folder)!r}, TWO_RANKS)
start(command, pathlib.Path({str(folder)!r}), "end", "exit 0")
WarmServer.of({str(folder)!r}, TWO_RANKS).connect()
open("started", "w").close()
time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", source], env=environment())
    wait_until((folder / "started").exists, PATIENCE, "an answer of the server that has started afresh")
    assert servers(str(folder))
    assert len(ranks(folder)) >= 1
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not processes_naming(folder), PATIENCE, "an end of every process")
    wait_until(lambda: not ranks(folder), PATIENCE, "an end of the ranks")


def test_a_server_that_cannot_import_is_no_reason_to_fail(tmp_path, monkeypatch):
    """The command then starts as it does without a server, and the reason is told."""
    (tmp_path / "numpy.py").write_text("raise OSError('no such library')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    command = WarmCommand(5.0, str(tmp_path), TWO_RANKS)
    command.start([sys.executable, "-S", "-c", "raise SystemExit(7)"], dict(os.environ), tmp_path / "log.txt")
    machines = RayMachines(TrialLocation(str(tmp_path), None, "sweep", "trial"), 1.0, TWO_RANKS, warm=True)
    machines._warm = command
    assert machines.remark() == (
        "started by `accelerate launch`, which takes longer: no warm start (OSError: no such library)"
    )
    assert ended(command) == 7
    WarmServer.of(str(tmp_path), TWO_RANKS).release()


@pytest.mark.slow
def test_a_trial_is_the_same_bit_for_bit_either_way(tmp_path, sweep):
    """Dropout and probes included; DeepSpeed's engine is checked by the rank itself in both."""
    configuration = tmp_path / "one.yaml"
    configuration.write_text("""
name: one
model: {family: vanilla, layers: 2, size: 6.6k, dropout: 0.1}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 40, batch_tokens: 480, validate_every: 20, validation_tokens: 500}
probes: {every: 20, sequences: 16}
""")
    found = []
    for way in ("warm", "cold"):
        planned = plan_single_trial(str(configuration), [f"storage={tmp_path / way}"])
        store = planned.sweep.location(planned.plan.label).store()
        planned.write(store)
        placement = planned.plan.placement
        command = WarmCommand(5.0, sweep, placement) if way == "warm" else SupervisedCommand(5.0)
        line = launch_command(placement, [str(store.spec)], rank=0, address="127.0.0.1", port=Port("127.0.0.1").number)
        command.start(line, rank_environment(placement), store.log)
        assert ended(command) == 0, store.log.read_text()
        assert way == "cold" or command.problem == ""
        result = store.read_result()
        found.append((recorded_losses(store.path), store.weights.read_bytes(), result.losses, result.engine))
    assert found[0] == found[1]
    assert len(found[0][0]) == 42
