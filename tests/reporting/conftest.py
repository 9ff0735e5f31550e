from pathlib import Path
from types import ModuleType

import pytest
from helpers import made_sweep


@pytest.fixture(scope="session")
def made() -> ModuleType:
    return made_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """3 N by 4 D, 1000 steps each."""
    return made_sweep.write_sweep(tmp_path_factory.mktemp("results") / "made")
