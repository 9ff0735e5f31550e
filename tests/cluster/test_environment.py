"""The environment of ranks: what an outer job or a shell set and a launcher must not see, and what stays."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from amscale.cluster.environment import clean_rank, is_removed, rank_environment
from amscale.trials.records import Placement

ON_CPU = Placement(1, 2, 3, "cpu", 0, "fp32", 8, 1)
ON_GPU = Placement(1, 2, 3, "cuda", 1, "bf16", 8, 1)
SITE = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LD_LIBRARY_PATH": "/opt/lib",
    "HF_HOME": "/data/hf",
    "HF_TOKEN": "t",
    "https_proxy": "http://proxy:3128",
    "AWS_PROFILE": "me",
    "NCCL_SOCKET_IFNAME": "ib0",
    "NCCL_IB_HCA": "mlx5",
    "GLOO_SOCKET_IFNAME": "eth1",
    "TORCH_NCCL_BLOCKING_WAIT": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "CUDA_HOME": "/usr/local/cuda",
    "SLURM_JOB_ID": "7",
}
OUTER = {
    **dict.fromkeys(["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK"], "3"),
    **dict.fromkeys(["MASTER_ADDR", "MASTER_PORT", "PET_NNODES", "TORCHELASTIC_RUN_ID", "NCCL_COMM_ID"], "3"),
    **dict.fromkeys(["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID", "SLURM_NTASKS"], "3"),
    **dict.fromkeys(["ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_GRADIENT_CLIPPING"], "1"),
    **dict.fromkeys(["ACCELERATE_DEEPSPEED_ZERO_STAGE", "ACCELERATE_DYNAMO_BACKEND", "DEEPSPEED_TIMEOUT"], "1"),
    **dict.fromkeys(["TORCHDYNAMO_DISABLE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE"], "1"),
    **dict.fromkeys(["ONEDNN_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "OMP_THREAD_LIMIT"], "1"),
    **dict.fromkeys(["CUDA_LAUNCH_BLOCKING", "KMP_AFFINITY", "GOMP_CPU_AFFINITY", "RAY_AUTH_TOKEN", "LOGLEVEL"], "1"),
}


def test_what_an_outer_job_set_is_gone_and_what_the_site_set_stays():
    environment = rank_environment(ON_GPU, SITE | OUTER | {"CUDA_VISIBLE_DEVICES": "5,6", "OMP_NUM_THREADS": "64"})
    threads = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "TOKENIZERS_PARALLELISM": "false"}
    assert environment == SITE | {"CUDA_VISIBLE_DEVICES": "5,6"} | threads


@pytest.mark.parametrize(("level", "passes"), [("DETAIL", True), ("info", True), ("garbage", False), ("", False)])
def test_a_debug_level_passes_if_torch_starts_with_it(level, passes):
    assert ("TORCH_DISTRIBUTED_DEBUG" in rank_environment(ON_CPU, {"TORCH_DISTRIBUTED_DEBUG": level})) is passes


def test_ranks_on_a_cpu_see_no_device():
    environment = rank_environment(ON_CPU, {"CUDA_VISIBLE_DEVICES": "0", "ACCELERATE_USE_CPU": "true"})
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["DS_ACCELERATOR"]) == ("", "cpu")
    assert environment["ACCELERATE_USE_CPU"] == "false"


def test_a_rank_that_was_started_by_hand_keeps_what_its_launcher_set():
    launchers = dict.fromkeys(["RANK", "WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_USE_DEEPSPEED", "DS_ACCELERATOR"], "1")
    environ = launchers | {name: value for name, value in OUTER.items() if re.match("OMPI|ACCELERATE|SLURM", name)}
    clean_rank(environ)
    assert environ == launchers


# Read where amscale does not go: other launchers, trackers, devices and clouds, and the folders of compilers.
ELSEWHERE = (
    "AWS_|CLEARML_|MLFLOW_|WANDB_|CCL_|ASCEND_|HPU|LOGGER_|XPU_|MORI_|CUTLASS_|VIRTUAL|PYTEST_|RUN_SLOW|FOO|systemdrive"
    "|PYTHON|HF_|XDG_|USER$|HOME$|CFLAGS|LDFLAGS|CXX|CPATH|LIBRARY_PATH|TMPDIR|MASTER_|DISABLE_LOGS|TORCH_CUDA_ARCH_LIST"
    "|NCCL_SOCKET_IFNAME|CUDA_(VISIBLE_DEVICES|HOME|PATH)|TRITON_(HOME|CACHE_DIR)|TORCH_DISTRIBUTED_DEBUG"
    "|TRANSFORMERS_NO_ADVISORY_WARNINGS"
)


@pytest.mark.parametrize("package", ["accelerate", "deepspeed"])
def test_every_variable_that_a_release_reads_is_decided(package):
    """A new release may read a new variable: it is removed by its prefix, or a person decides here that it may stay."""
    root = Path(find_spec(package).origin).parent
    reads = re.compile(r"(?:environ(?:\.\w+)?[\[(] ?|getenv\( ?|_from_env\(\[?)[\"'](\w+)[\"']")
    names = {name for path in root.rglob("*.py") for name in reads.findall(path.read_text(errors="replace"))}
    assert len(names) > 20
    assert not [name for name in sorted(names) if not is_removed(name) and not re.match(ELSEWHERE, name)]
