"""What NVIDIA's cards compute at most, and which share of it a run reaches: its model FLOPs utilisation (MFU)."""

import re
from dataclasses import dataclass

from amscale.errors import InputError

PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "H100": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX A6000": 154.8e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}
"""FLOP/s of matrix products in bf16 with float32 sums, without sparsity, by NVIDIA's data sheets; most of them print
twice as much, "with sparsity"."""
MEMORIES = {
    "GB200": 186e9,
    "B200": 180e9,
    "GH200": 96e9,
    "H200": 141e9,
    "H200 NVL": 141e9,
    "H100": 80e9,
    "H100 NVL": 94e9,
    "H100 PCIe": 80e9,
    "H20": 96e9,
    "A100": 80e9,
    "A800": 80e9,
    "A40": 48e9,
    "A30": 24e9,
    "A10": 24e9,
    "L40S": 48e9,
    "L40": 48e9,
    "L4": 24e9,
    "RTX A6000": 48e9,
    "RTX 5090": 32e9,
    "RTX 4090": 24e9,
    "RTX 3090": 24e9,
}
"""Bytes of memory by the same data sheets; of the larger card where a model has two."""
USUAL_SHARE = 0.4
"""Of the bf16 peak: what training of large models usually reaches, by the published figures that docs/performance.md
has; small models reach less."""
_BESIDE = re.compile(r"NVIDIA|Tesla|GeForce|\d+GB|HBM\d?e?|SXM\d?|PCIe", re.IGNORECASE)
"""What a driver writes beside the model without meaning another one: unlike Laptop, MIG or 20C, a part of a card."""

MFU_FORMULA = "flops.per_token · tokens / (seconds of steps · devices · peak bf16 FLOP/s of the card)"
"""After Chowdhery et al. 2022 (PaLM), appendix B; recomputation does not count."""


def peak_flops(card: str) -> float | None:
    """Return the dense bf16 FLOP/s of a card at most; None where the table does not have it.

    Args:
        card: what its driver calls it, such as `NVIDIA H100 80GB HBM3`.
    """
    words = {word.upper() for word in re.split(r"[\s-]+", card) if word}
    found = [
        (len(model), peak)
        for name, peak in PEAKS.items()
        if (model := set(name.upper().split())) <= words and all(map(_BESIDE.fullmatch, words - model))
    ]
    return max(found)[1] if found else None


def known_card(name: str) -> str:
    """Return the table's name of a card, whatever its letters' size: `H100` for `h100`.

    Raises:
        InputError: the table does not have it.
    """
    found = {card.lower(): card for card in PEAKS}.get(" ".join(name.lower().replace("-", " ").split()))
    if found is None:
        raise InputError(f"on={name!r} is not a card with known figures; give one of {', '.join(PEAKS)}")
    return found


@dataclass(frozen=True)
class Utilisation:
    """Turns tokens and seconds of a run into its MFU."""

    peak: float
    """FLOP/s of one device at most."""
    flops_per_token: float
    devices: int

    def mfu(self, tokens: float, seconds: float) -> float:
        """Return the MFU of all devices together over some tokens."""
        return self.flops_per_token * tokens / (seconds * self.devices * self.peak)


def utilisation(flops_per_token: float, devices: int, device: str, precision: str) -> Utilisation | None:
    """Return the measure of a run on this process's device; None where its peak is not known: in fp32, on a CPU.

    Args:
        flops_per_token: training FLOPs.
        devices: of the trial, all like this one.
        device: as torch names it, such as `cuda:0`.
        precision: of the trial.
    """
    import torch

    if not device.startswith("cuda") or precision != "bf16":
        return None
    peak = peak_flops(torch.cuda.get_device_name(device))
    return None if peak is None else Utilisation(peak, flops_per_token, devices)
