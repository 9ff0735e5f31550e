"""The table of cards, what the plan assumes by it, and the MFU of a run."""

import json

import pytest

from amscale.cluster.cards import PEAKS, Utilisation, peak_flops, utilisation
from amscale.cluster.resources import Host, Resources, assumed_flops
from amscale.training.metrics_writer import MetricsWriter
from amscale.trials.metrics import TrainRecord
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("A100-PCIE-40GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX A6000", 154.8e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        # Others, or parts of a card: no number is better than a wrong one.
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("GRID A100-20C", None),
        ("NVIDIA A10G", None),
        ("Tesla V100-SXM2-16GB", None),
        ("", None),
    ],
)
def test_a_card_by_the_name_its_driver_gives(name, peak):
    assert peak_flops(name) == peak


def test_every_name_of_the_table_is_found():
    assert {name: peak_flops(f"NVIDIA {name}") for name in PEAKS} == PEAKS


@pytest.mark.parametrize(
    ("names", "precision", "expected"),
    [
        (["NVIDIA H100 80GB HBM3"], "bf16", 0.4 * 989e12),
        (["NVIDIA H100 80GB HBM3 + NVIDIA A100-SXM4-80GB"], "bf16", 0.4 * 312e12),
        (["NVIDIA H100 80GB HBM3", "NVIDIA L4"], "bf16", 0.4 * 121e12),
        (["NVIDIA H100 80GB HBM3", "Tesla T4"], "bf16", 1.2e14),
        (["NVIDIA H100 80GB HBM3"], "fp32", 1.2e14),
        ([""], "bf16", 1.2e14),
    ],
)
def test_the_plan_assumes_a_share_of_the_slowest_cards_peak(names, precision, expected):
    hosts = [Host(cpus=8, gpus=1, memory=10**11, gpu_memory=8 * 10**10, gpu_name=name) for name in names]
    head = Host(cpus=8, gpus=0, memory=10**11)
    placement = Placement(1, 1, 1, "cuda", 1, precision, 1, 1)
    assert assumed_flops(placement, Resources((head, *hosts))) == pytest.approx(expected)


def test_mfu_of_each_step_by_hand(tmp_path):
    """GPT-2 small, 0.86 GFLOPs a token: 400k tokens/s on one H100 are 35 %."""
    measure = Utilisation(989e12, 0.86e9, devices=2)
    writer = MetricsWriter(TrialStore(tmp_path), 0, utilisation=measure)
    for step, (tokens, seconds) in enumerate([(4_000, 9.0), (804_000, 10.0), (1_004_000, 10.5)], 1):
        writer.train(step, tokens, 3.0, 1e-3, 0.5, seconds, applied=True)
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "mfu" not in lines[0]  # the first step of an attempt has nothing to be timed against
    assert [line["mfu"] for line in lines[1:]] == pytest.approx([0.3478, 0.1739], abs=1e-4)
    assert [record.mfu for record in TrialStore(tmp_path).read_metrics(TrainRecord)][1:] == [
        line["mfu"] for line in lines[1:]
    ]


def test_no_mfu_where_no_peak_is_known(tmp_path):
    assert utilisation(1e9, 1, "cpu", "bf16") is None
    assert utilisation(1e9, 1, "cuda:0", "fp32") is None
    writer = MetricsWriter(TrialStore(tmp_path), 0)
    for step in (1, 2):
        writer.train(step, 100 * step, 3.0, 1e-3, 0.5, float(step), applied=True)
    writer.close()
    assert "mfu" not in (tmp_path / "metrics.jsonl").read_text()
