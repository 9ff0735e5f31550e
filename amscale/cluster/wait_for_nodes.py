"""Wait until a Ray cluster has all its nodes.

python -m amscale.cluster.wait_for_nodes HEAD:PORT NODES
"""

import logging
import sys
import time

_SECONDS = 300.0


def wait_for_nodes(address: str, count: int, seconds: float = _SECONDS) -> None:
    """Wait until `count` nodes of the cluster at `address` are alive.

    Raises:
        RuntimeError: that takes longer than `seconds`.
    """
    import ray

    deadline = time.monotonic() + seconds
    alive = 0
    while time.monotonic() < deadline:
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
            alive = sum(node["Alive"] for node in ray.nodes())
        except (ConnectionError, RuntimeError):
            alive = 0
        if alive >= count:
            return
        time.sleep(0.2)
    raise RuntimeError(f"{alive} of {count} Ray nodes answer after {seconds:.0f} s")


if __name__ == "__main__":
    try:
        wait_for_nodes(sys.argv[1], int(sys.argv[2]))
    except RuntimeError as error:
        sys.exit(f"wait_for_nodes: {error}")
