import sys
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import made_report_sweep


@pytest.fixture(scope="session")
def made() -> ModuleType:
    return made_report_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """3 N by 4 D, 1000 steps each."""
    return made_report_sweep.write_sweep(tmp_path_factory.mktemp("results") / "made")
