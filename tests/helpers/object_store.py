"""A local server of the S3 protocol."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from helpers.commands import wait_until

BUCKET = "bucket"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "made",
    "AWS_SECRET_ACCESS_KEY": "made",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client of the server needs in its environment."""


def missing() -> str | None:
    """Why there can be no server here, or None."""
    lacking = [name for name in ("moto", "flask", "flask_cors") if find_spec(name) is None]
    return f"needs {' and '.join(lacking)} from PyPI" if lacking else None


@contextmanager
def object_store(address: str, port: int, log: Path) -> Iterator[str]:
    """A server with one empty bucket; yields the URI of a prefix in it."""
    at = f"http://{address}:{port}"
    with log.open("ab") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **CREDENTIALS},
        )
    try:
        wait_until(lambda: server.poll() is not None or _answers(at), 600, "an object store that answers")
        assert server.poll() is None, log.read_text()
        urllib.request.urlopen(urllib.request.Request(f"{at}/{BUCKET}", method="PUT"), timeout=20).close()
        yield f"s3://{BUCKET}/some/results?endpoint_override={address}:{port}&scheme=http"
    finally:
        server.kill()
        server.wait()


def _answers(at: str) -> bool:
    try:
        urllib.request.urlopen(f"{at}/moto-api/", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
