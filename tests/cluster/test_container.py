"""The container file, the RayJob and the task of SkyPilot: what they name exists, and what they start is a command."""

import functools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import hosts as fleet
from helpers.commands import TINY, ended, environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from amscale import sweep
from amscale.cli import COMMANDS
from amscale.config import Experiment, load, split_arguments

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "container"
BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = BUILD["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
TORCH = re.search(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
WHY_NOT = fleet.missing()


def instructions() -> list[tuple[str, str]]:
    """Return name and arguments of each instruction of the Dockerfile."""
    lines = [line for line in (FOLDER / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in whole if line.strip())]


def task(name: str) -> dict:
    return yaml.safe_load((FOLDER / name).read_text())


def experiment_of(command: str, configuration: Path) -> Experiment:
    """Return what a sweep's command line asks for, as our own parser reads it, with another configuration."""
    python, module, name, path, *rest = shlex.split(command)
    assert (python, module) == ("python", "-m")
    assert name.removeprefix("amscale.") in COMMANDS
    assert path.endswith(".yaml")
    kept: list[tuple[str, ...]] = []

    @functools.wraps(sweep.sweep)
    def keep(*arguments: str, **flags: bool) -> int:
        kept.append(arguments)
        return 0

    assert ended(keep, str(configuration), *rest) == 0
    return load(*split_arguments(kept[0]))


@pytest.fixture
def tiny(tmp_path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path / "tiny.yaml"


# --- Dockerfile


def test_the_image_installs_what_is_pinned_on_a_python_that_will_do():
    lines = instructions()
    (base,) = (arguments for name, arguments in lines if name == "FROM")
    python = re.fullmatch(r"python:(3\.\d+)-slim-bookworm", base)
    assert python
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python[1]}.0")
    assert f"Programming Language :: Python :: {python[1]}" in PROJECT["classifiers"]
    installed = [arguments for name, arguments in lines if name == "RUN" and " pip install " in arguments]
    assert len(installed) == 2
    assert ("ARG", f"TORCH={TORCH[1]}") in lines
    assert shlex.split(installed[0])[-1] == "$TORCH"
    words = shlex.split(installed[1])
    assert words[words.index("--constraint") + 1] == "/opt/amscale/constraints.txt"
    package, ray = words[-2:]
    extra = re.fullmatch(r"/opt/amscale\[(\S+)\]", package)
    assert extra
    assert extra[1] in PROJECT["optional-dependencies"]
    assert Requirement(ray).extras == {"default"}
    assert PINS["ray"]


def test_what_is_copied_exists_and_is_all_that_the_wheel_is_made_of():
    copied = {}
    for name, arguments in instructions():
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                copied[source] = target
    wheel = BUILD["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], PROJECT["readme"]}
    assert copied.keys() == needed | {"pyproject.toml", "constraints.txt", *PROJECT["license-files"]}
    # A folder keeps its name below /opt/amscale, files go into it.
    assert all(copied[source] == f"/opt/amscale/{source if (ROOT / source).is_dir() else ''}" for source in copied)


def test_a_container_sees_its_gpus_and_is_not_root():
    lines = instructions()
    variables = dict(word.split("=") for name, arguments in lines if name == "ENV" for word in arguments.split())
    assert set(variables["NVIDIA_DRIVER_CAPABILITIES"].split(",")) == {"compute", "utility"}
    assert variables["RAY_worker_niceness"] == "0"
    (user,) = (arguments for name, arguments in lines if name == "USER")
    assert int(user) > 0
    assert lines[-2][0] == "USER"  # nothing is installed by a user without rights
    packages = next(arguments for name, arguments in lines if name == "RUN" and "apt-get" in arguments)
    assert {"g++", "wget"} <= set(packages.split())


# --- KubeRay


def test_the_job_is_a_sweep_on_a_head_without_gpu_and_workers_that_share_its_storage(tiny):
    job = task("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["authOptions"] == {"mode": "token"}
    experiment = experiment_of(spec["entrypoint"], tiny)
    assert experiment.launch.address == "auto"
    path = shlex.split(spec["entrypoint"])[3]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"]  # trials are planned for all of them
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    claims, gpus = set(), []
    for group in (head, workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        limits = container["resources"]["limits"]
        assert container["resources"]["requests"] == limits
        gpus.append(int(limits.get("nvidia.com/gpu", 0)))
        assert "num-gpus" not in group["rayStartParams"]  # the operator takes them from the limits
        assert int(limits["cpu"]) >= gpus[-1] * experiment.launch.least_cpus
        assert container["image"] == "registry.example/amscale:latest"
        assert container["image"] in (FOLDER / "Dockerfile").read_text()
        assert pod["securityContext"]["runAsNonRoot"] is True
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert mount["name"] == volume["name"]
        claims.add((mount["mountPath"], volume["persistentVolumeClaim"]["claimName"]))
        for place in (path, experiment.storage):
            assert Path(mount["mountPath"]) in Path(place).parents
    assert gpus == [0, 8]
    assert len(claims) == 1


def test_the_page_names_the_files_and_holds_no_copy():
    page = (ROOT / "docs" / "clusters.md").read_text()
    for path in FOLDER.iterdir():
        assert f"container/{path.name}" in page
    assert "apiVersion" not in page


# --- SkyPilot


def test_the_task_installs_what_is_pinned_and_asks_for_its_secrets():
    sky = task("skypilot.yaml")
    assert sky["setup"].count(TORCH[1]) == 1
    assert "--constraint constraints.txt" in sky["setup"]
    assert f"--python {instructions()[0][1].removeprefix('python:')[:4]}" in sky["setup"]
    assert sky["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert sky["envs"]["STORAGE"] is None
    assert (ROOT / sky["envs"]["CONFIG"]).is_file()
    for part in (sky["setup"], sky["run"]):
        subprocess.run(["bash", "-n"], input=part, text=True, check=True)
    (line,) = (line for line in sky["run"].splitlines() if "amscale.sweep" in line)
    values = {"$CONFIG": "x.yaml", "$STORAGE": "s3://bucket/x", "$head": "10.0.0.1:6390", "$SETTINGS": "seed=[0,1]"}
    for name, value in values.items():
        line = line.replace(name, value)
    experiment = experiment_of(line.split(" 8<&-")[0], ROOT / sky["envs"]["CONFIG"])
    assert (experiment.storage, experiment.launch.address) == ("s3://bucket/x", "10.0.0.1:6390")
    assert experiment.grid["seed"] == (0, 1)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_its_machines_form_a_cluster_and_all_end_well(tiny, tmp_path):
    """On two hosts, up to the plan: it lists both machines, so that the node of the second one has joined."""
    sky = task("skypilot.yaml")
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n")
    with fleet.hosts(2, subnet=27) as made:
        variables = {
            **environment(),
            **{name: value for name, value in sky["envs"].items() if value is not None},
            "CONFIG": str(tiny),
            "STORAGE": str(tmp_path),
            "SETTINGS": "--dry_run seed=[0,1]",
            "RAY_AUTH_TOKEN": os.urandom(32).hex(),
            "RAY_ADDRESS": "10.9.8.7:1",  # of SkyPilot's own Ray
            "SKYPILOT_NODE_IPS": "\n".join(host.address for host in made.hosts),
        }
        started = [
            host.run(
                "bash",
                "-c",
                sky["run"],
                cwd=tmp_path,
                env={**variables, "SKYPILOT_NODE_RANK": str(rank)},
                stdout=(tmp_path / f"{rank}.txt").open("w"),
                stderr=subprocess.STDOUT,
            )
            for rank, host in enumerate(made.hosts)
        ]
        statuses = [process.wait(timeout=600) for process in started]
        left = [process.cmdline() for host in made.hosts for process in host.processes()]
    said = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert statuses == [0, 0], "\n".join(said)
    assert "2 machines" in said[0]
    assert not left
