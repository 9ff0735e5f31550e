"""The environment of a trial's processes: nothing outside of the configuration changes what is trained.

The libraries below a rank read some hundred variables. A shell, a batch job or an earlier launcher may have set any of
them, and most change what is trained, or how ranks find each other, without a word. So the ranks' environment is made
here: variables of the prefixes below are removed, but for those that describe the site (its network, devices, software
and caches); what a trial needs is set. Everything else passes: PATH, LD_LIBRARY_PATH, proxies, credentials of storage.
"""

import ctypes
import os
import re
from collections.abc import Mapping, MutableMapping

from amscale.trials.records import Placement

_REMOVED_PREFIXES = (
    # Where an outer job placed its own processes: torch's launcher, Horovod, MPI, PMIx, Slurm, hosted services, Ray.
    *("TORCHELASTIC_", "TORCH_ELASTIC_", "GROUP_", "ROLE_", "MASTER_", "PET_", "HOROVOD_", "CROSS_", "TORCHCOMM_"),
    *("OMPI_", "PMI_", "PMI2_", "PMIX_", "PRTE_", "ORTE_", "MPI_", "I_MPI_", "MPIR_", "MPICH_", "MPIEXEC_", "MV2_"),
    *("HYDRA_", "HYDI_", "SLURM_", "SRUN_", "LSB_", "PALS_", "DLWS_", "DLTS_", "AZ_BATCH", "SM_", "SMDATAPARALLEL_"),
    *("TRAINING_JOB_", "KUBEFLOW_", "TPU_", "RAY_", "TUNE_"),
    # What is trained: settings of Accelerate, DeepSpeed and transformers that are not in the configuration.
    *("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FP8_", "DEEPSPEED_", "DS_", "AUTOEP_"),
    "TRANSFORMERS_",
    # How it is computed: compilers, kernels, precision, threads.
    *("TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "AOT_", "ATEN_", "XLA_", "PJRT_", "PT_HPU_", "TRITON_"),
    *("ONEDNN_", "DNNL_", "MKL_", "OMP_", "KMP_", "GOMP_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "CUDA_", "CUBLAS_"),
    *("CUBLASLT_", "CUDNN_", "FLASH_ATTENTION_"),
)
_REMOVED = frozenset(
    {
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "NODE_RANK", "NNODES", "NPROC"),
        *("TF_CONFIG", "FORK_LAUNCHED", "NCCL_COMM_ID", "USE_LIBUV", "LOGLEVEL"),
        *("USE_TORCH_XLA", "USE_TORCH", "USE_TF", "USE_JAX", "USE_HUB_KERNELS", "TRUST_REMOTE_CODE", "USE_MKL_GEMM"),
        *("NVIDIA_TF32_OVERRIDE", "HSA_OVERRIDE_GFX_VERSION", "MKLDNN_VERBOSE"),
    }
)
_KEPT = re.compile(
    # Devices that Ray or a scheduler grants, and how this machine numbers them.
    "(CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|MPS_.*|MODULE_LOADING)"
    # Software and caches of the site.
    "|(CUDA|CUDNN)_(HOME|PATH|ROOT|CACHE_PATH|INC_PATH|LIBRARY)|TORCH_(HOME|EXTENSIONS_DIR|CUDA_ARCH_LIST)"
    "|TORCHINDUCTOR_CACHE_DIR|TRITON_(HOME|CACHE_DIR|PTXAS_PATH|LIBDEVICE_PATH)|PYTORCH_KERNEL_CACHE_PATH"
    "|TRANSFORMERS_(CACHE|OFFLINE|VERBOSITY|NO_ADVISORY_WARNINGS)|KMP_DUPLICATE_LIB_OK"
    # Memory and workspaces of a device; they move a result by rounding at most.
    "|PYTORCH_(CUDA_|HIP_)?ALLOC_CONF|CUBLAS_WORKSPACE_CONFIG"
    # How a hang of the network is looked into.
    "|TORCH_(NCCL_.*|SHOW_CPP_STACKTRACES|CPP_LOG_LEVEL)"
    # The job that a log or a corpus of the user's names, and its folder on this machine.
    "|SLURM_(JOB_ID|JOBID|TMPDIR))=.*"
    # torch starts with no other level.
    "|TORCH_DISTRIBUTED_DEBUG=(?i:OFF|INFO|DETAIL)",
    re.DOTALL,
)
"""Variables, NAME=VALUE, that pass though their prefix is removed."""
_LAUNCHERS = re.compile(
    "RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|(GROUP|ROLE|MASTER|TORCHELASTIC)_.*|OMP_NUM_THREADS"
    "|ACCELERATE_(USE_DEEPSPEED|MIXED_PRECISION|CONFIG_DS_FIELDS|DEEPSPEED_CONFIG_FILE)"
    "|MKL_NUM_THREADS|DS_ACCELERATOR|ACCELERATE_USE_CPU"
)
"""What a rank gets from the launch command: from `accelerate launch`, from torch's launcher, by `set_variables`."""


def is_removed(name: str, value: str = "") -> bool:
    """Return whether the ranks must not see a variable of the outer environment."""
    removed = name in _REMOVED or name.startswith(_REMOVED_PREFIXES)
    return removed and not _KEPT.fullmatch(f"{name}={value}")


def set_variables(placement: Placement) -> dict[str, str]:
    """Return the variables that the ranks need, the same on every machine."""
    threads = str(placement.cpus_per_process)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    if placement.device == "cpu":
        # Without this DeepSpeed looks for an accelerator, and Accelerate for MPI.
        environment |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_CPU": "false", "CUDA_VISIBLE_DEVICES": ""}
    return environment


def rank_environment(placement: Placement, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the whole environment of a trial's launcher and ranks.

    Args:
        placement: of the trial.
        outer: the environment of the process that starts them.
    """
    return {name: value for name, value in outer.items() if not is_removed(name, value)} | set_variables(placement)


def clean_rank(environ: MutableMapping[str, str] = os.environ) -> None:
    """Remove from a rank's environment what the launch command did not set, before torch is imported.

    A trial that is started by hand otherwise has all that its shell has.
    """
    for name in list(environ):
        if is_removed(name, environ[name]) and not _LAUNCHERS.fullmatch(name):
            del environ[name]


MMAP_THRESHOLD = 1 << 20
"""Bytes from which on a rank's tensors in main memory are mapped by themselves, and given back when they are freed."""
_TRIM_THRESHOLD = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def fix_allocator(environ: Mapping[str, str] = os.environ) -> None:
    """Let glibc's allocator give large tensors back, whatever was freed before; steps take as long.

    It otherwise raises its threshold to the largest tensor that was freed, up to 32 MiB, and cuts all smaller ones from
    its heap, which then holds up to twice what they take. What the environment says of the allocator counts instead;
    other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in environ):
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
