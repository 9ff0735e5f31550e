"""What a machine is granted: by nvidia-smi, CUDA_VISIBLE_DEVICES, cgroups and Slurm, and by each node of a cluster."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import hosts as fleet
from helpers.commands import environment

from amscale import config
from amscale.cluster import gpus
from amscale.cluster.gpus import find_gpus
from amscale.cluster.limits import cgroup_cpus, cgroup_memory, granted_cpus, slurm_memory
from amscale.cluster.resources import Host, Resources, _check_versions, _given_by_ray, _versions, this_machine
from amscale.errors import InputError
from amscale.planning.plan import plan_sweep

EIGHT = "\n".join(f"GPU-{i}, NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled" for i in range(8))
UNIFIED = "GPU-0, NVIDIA GB10, [N/A], 12.1, [N/A]"
OLD = "GPU-0, Tesla V100-SXM2-16GB, 16160, 7.0, [N/A]"
MIG = "GPU-0, NVIDIA A100-SXM4-40GB, 40960, 8.0, Enabled"
MIG_LIST = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa)
  MIG 1g.5gb      Device  1: (UUID: MIG-bb)"""


WHY_NOT = fleet.missing()


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a program of that name first on the PATH, which answers what it is told."""

    def install(answer: str, status: int = 0, slices: str = "", before: str = "") -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "answer").write_text(f"{answer}\n" if answer else "")
        (folder / "slices").write_text(slices)
        program = folder / "nvidia-smi"
        file = f'{folder}/$([ "$1" = -L ] && echo slices || echo answer)'
        program.write_text(f'#!/bin/sh\n{before}\ncat "{file}"\nexit {status}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


@pytest.mark.parametrize(
    ("answer", "visible", "found"),
    [
        (EIGHT, None, [("GPU-" + str(i), 81559 << 20, True) for i in range(8)]),
        (EIGHT, "6,2", [("GPU-6", 81559 << 20, True), ("GPU-2", 81559 << 20, True)]),
        (EIGHT, "1,9,2", [("GPU-1", 81559 << 20, True)]),
        (EIGHT, "GPU-3", [("GPU-3", 81559 << 20, True)]),
        (EIGHT, "", []),
        (EIGHT, "-1", []),
        (UNIFIED, None, [("GPU-0", None, True)]),
        (OLD, None, [("GPU-0", 16160 << 20, False)]),
        (MIG, None, [("MIG-aa", 20 * 10**9, True), ("MIG-bb", 5 * 10**9, True)]),
        (MIG, "MIG-bb", [("MIG-bb", 5 * 10**9, True)]),
        ("No devices were found", None, []),
    ],
)
def test_the_gpus_that_are_granted(nvidia_smi, monkeypatch, answer, visible, found):
    nvidia_smi(answer, slices=MIG_LIST)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    search = find_gpus()
    assert [(gpu.uuid, gpu.memory, gpu.bf16) for gpu in search.gpus] == found
    assert search.trouble == ""


@pytest.mark.parametrize(
    ("answer", "status", "before", "words"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9, "", "ends with status 9"),
        ("", 0, "", "gives no answer"),
        ("Segmentation fault\x07", 0, "", "an answer that is not known"),
        ("GPU-0, NVIDIA H100, viele, 9.0, Disabled", 0, "", "a memory that is not known"),
        ("", 0, "sleep 600", "has not answered within 1 s"),
    ],
)
def test_a_bad_answer_is_one_line_and_never_a_plan_for_the_cpu(
    nvidia_smi, monkeypatch, tmp_path, answer, status, before, words
):
    monkeypatch.setattr(gpus, "_ANSWER_SECONDS", 1.0)
    nvidia_smi(answer, status, before=before)
    machine = this_machine()
    settings = config.load("grammar.yaml", ["model.size=25k", "data.size=8k"])
    with pytest.raises(
        InputError, match=f"launch.device=auto: nvidia-smi .*{words}.*; mend it, or give launch.device=cpu"
    ):
        plan_sweep(settings, tmp_path, machine, build=False)
    on_cpu = config.load("grammar.yaml", ["model.size=25k", "data.size=8k", "launch.device=cpu"])
    assert plan_sweep(on_cpu, tmp_path, machine, build=False).trials[0].placement.device == "cpu"


def test_no_driver_is_asked_where_the_cpu_is_asked_for(nvidia_smi, tmp_path):
    nvidia_smi(EIGHT, before=f"touch {tmp_path}/asked")
    assert this_machine("cpu").describe().endswith("0 GPUs; not asked for GPUs: launch.device=cpu")
    assert not (tmp_path / "asked").exists()
    assert this_machine().has_gpus
    assert (tmp_path / "asked").exists()


def test_unified_memory_is_the_machines(nvidia_smi):
    nvidia_smi(UNIFIED)
    (host,) = this_machine().hosts
    assert (host.gpus, host.gpu_memory, host.gpu_name) == (1, host.memory, "NVIDIA GB10")


def test_a_program_that_cannot_be_started(nvidia_smi, tmp_path):
    nvidia_smi(EIGHT)
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/no/such/interpreter\n")
    assert "cannot be started" in find_gpus().trouble


def test_an_amd_gpu_is_named_and_not_used(tmp_path, monkeypatch):
    """Its driver makes /dev/kfd; the plan says in one line that NVIDIA is meant."""
    monkeypatch.setattr(gpus.os.path, "exists", lambda path: path == "/dev/kfd")
    monkeypatch.setattr(gpus.glob, "glob", lambda pattern: [])
    note = "the AMD GPU here is not used: amscale trains on NVIDIA's, and on CPUs"
    assert find_gpus({"PATH": str(tmp_path)}) == gpus.GpuSearch(note=note)
    machines = Resources((Host(cpus=2, gpus=0, memory=10**10, note=note),))
    assert machines.describe().endswith(note)


def test_each_gpu_needs_its_cores():
    """`sbatch --gpus-per-node=8` without --cpus-per-task grants one core."""
    host = Host(cpus=1, gpus=8, memory=10**11, gpu_memory=80 * 10**9, gpu_name="H100")
    machines = Resources((host, Host(cpus=0, gpus=0, memory=10**9)))
    assert machines.processes("cuda", 1) == [1, 0]
    assert "7 of them cannot be used: each needs a CPU core beside it" in machines.describe()
    assert "8 H100 of 80 GB" in machines.describe()
    cell = config.load("grammar.yaml", ["model.size=25k", "data.size=8k", "launch.cpus_per_process=4"])
    with pytest.raises(
        InputError, match=r"launch\.cpus_per_process=4: no machine gives that many CPU cores beside a GPU"
    ):
        plan_sweep(cell, Path("/nonexistent"), machines, build=False)


@pytest.mark.parametrize(
    ("found", "given", "words"),
    [(8, 2, ""), (2, 2, ""), (1, 2, "Ray gives 2 GPUs, and nvidia-smi finds 1"), (0, 2, "no nvidia-smi is there")],
)
def test_gpus_that_ray_gives_and_the_machine_has_not(found, given, words):
    """`ray start --num-gpus` takes any number: ranks would get devices that are not there."""
    node = {"NodeManagerAddress": "10.0.0.7", "NodeID": "abc", "Resources": {"CPU": 8.0, "GPU": float(given)}}
    host = _given_by_ray(Host(cpus=64, gpus=found, memory=10**11, gpu_memory=80 * 10**9), node)
    assert (host.cpus, host.gpus, host.node) == (8, given, "abc")
    assert words in host.trouble
    assert ("node 10.0.0.7" in host.trouble) == bool(words)


def test_a_node_with_other_versions_is_named_before_anything_starts():
    here = dict(_versions())
    host = Host(cpus=1, gpus=0, memory=1, versions=tuple(here.items()))
    _check_versions(host, "10.0.0.7")
    with pytest.raises(
        InputError, match=rf"node 10.0.0.7 of the cluster has torch 1\.0 and not {here['torch']}, which"
    ):
        _check_versions(replace(host, versions=tuple((here | {"torch": "1.0"}).items())), "10.0.0.7")
    with pytest.raises(InputError, match=r"has amscale of an earlier version and not .*; give all one environment"):
        _check_versions(replace(host, versions=()), "10.0.0.7")


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/", {"cpu.max": "50000 100000", "memory.max": "1073741824"}, 0.5, 2**30),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, 3.0, None),
        ("0::/../../gone", {"cpu.max": "250000 100000"}, 2.5, None),
        (
            "4:memory:/job\n1:cpu,cpuacct:/job",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "150000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "memory/job/memory.limit_in_bytes": "2147483648",
                "memory/memory.limit_in_bytes": "9223372036854771712",
            },
            1.5,
            2**31,
        ),
        ("", {}, float("inf"), None),
    ],
)
def test_limits_of_containers(tmp_path, own, files, cores, memory):
    """Of both versions of cgroups, of this group and of those above it."""
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert cgroup_cpus(tmp_path / "own", tmp_path / "root") == cores
    assert cgroup_memory(tmp_path / "own", tmp_path / "root") == memory


@pytest.mark.parametrize(
    ("variables", "megabytes"),
    [
        ({"SLURM_MEM_PER_NODE": "4000"}, 4000),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "6"}, 3000),
        ({"SLURM_MEM_PER_GPU": "8000", "SLURM_GPUS_ON_NODE": "4"}, 32000),
        ({}, None),
    ],
)
def test_memory_that_slurm_grants(variables, megabytes):
    assert slurm_memory(variables) == (megabytes and megabytes * 2**20)


def test_cores_that_slurm_grants():
    assert granted_cpus({"SLURM_CPUS_ON_NODE": "1"}) == 1
    assert granted_cpus({}) <= len(os.sched_getaffinity(0))


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_every_node_is_asked_for_its_own_cards(tmp_path):
    """A head without GPUs and CPU cores, where the driver runs, and workers with unlike cards."""
    cards = {2: "GPU-{}, NVIDIA H100 80GB HBM3, 81559, 9.0, Disabled", 3: "GPU-{}, Tesla T4, 15360, 7.5, [N/A]"}
    with fleet.hosts(3, subnet=60) as made:
        for host in made.hosts:
            folder = tmp_path / str(host.index)
            folder.mkdir()
            program = folder / "nvidia-smi"
            answer = cards.get(host.index, "No devices were found")
            program.write_text("#!/bin/sh\n" + "".join(f"echo '{answer.format(i)}'\n" for i in range(2)))
            program.chmod(0o755)
            gpus = 2 if host.index in cards else 0
            made.start_ray(host, cpus=2 * gpus, gpus=gpus, path=str(folder))
        made.wait_for_nodes(3)
        settings = ["grammar.yaml", "model.size=25k", "data.size=8k", f"storage={tmp_path}"]
        planner = made.hosts[0].run(
            *(sys.executable, "-m", "amscale.plan", *settings, f"launch.address={made.address}", "--json"),
            env={**environment(), **made.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        output, said = planner.communicate(timeout=600)
    assert planner.returncode == 0, said
    plan = json.loads(output)
    assert plan["resources"] == (
        "3 machines, 8 CPU cores, 4 GPUs (2 NVIDIA H100 80GB HBM3 of 86 GB, 2 Tesla T4 of 16 GB)"
    )
    assert plan["trials"][0]["device"] == "cuda"
