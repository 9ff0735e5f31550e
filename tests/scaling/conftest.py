"""The folder of published data, wherever it is."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published() -> Path:
    folder = Path(os.environ.get("AMSCALE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"published data is not at {folder}; set AMSCALE_DATA")
    return folder
