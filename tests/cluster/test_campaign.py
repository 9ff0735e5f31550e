"""A short fault campaign; the long one is `python tests/campaign.py`."""

import math

import campaign
import pytest
from helpers import hosts as fleet

WHY_NOT = fleet.missing()
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

FAULTS = ("line torn", "checkpoint cut short", "actor killed")
SHORT = ("grid.seed=[0]", "train.steps=500")


def test_a_disturbed_ledger_is_a_calm_one(tmp_path):
    """Trials, losses and weights bit for bit, no process left, no result lost, whatever happened on the way."""
    done = campaign.Campaign()
    with fleet.ray_hosts(3, subnet=32) as cluster:
        for done, fault in campaign.run(cluster, tmp_path, FAULTS, seed=0, overrides=SHORT):
            if fault is not None:
                print(campaign.line(len(done.faults), fault, math.nan))
    print(campaign.totals(done))
    assert [fault.kind for fault in done.faults] == list(FAULTS)
    assert done.records > 1000
    assert not done.wrong


def test_a_campaign_is_repeatable_and_has_every_kind():
    chosen = campaign.chosen_kinds(50, seed=3)
    assert chosen == campaign.chosen_kinds(50, seed=3)
    assert set(chosen) == set(campaign.KINDS)
