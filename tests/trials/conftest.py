"""What the tests of the trials share."""

import pytest

from amscale.trials.objects import ObjectStore


@pytest.fixture
def objects(tmp_path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")
