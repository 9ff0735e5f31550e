"""The environment of a rank that a test starts without a launcher."""

from amscale.files import packaged


def only_rank(precision: str = "fp32", stage: int = 0) -> dict[str, str]:
    """Return what Accelerate's launcher gives the only rank of a trial on a CPU under DeepSpeed."""
    return {
        **{"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"},
        **{"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_DEEPSPEED": "true"},
        "ACCELERATE_MIXED_PRECISION": "bf16" if precision == "bf16" else "no",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(packaged("launch") / f"zero{stage}.json"),
    }
