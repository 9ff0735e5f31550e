"""What a probe hands back: named numbers, named distributions, and the reason for each that is missing."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass
class Measurement:
    """One probe of a network. Names have the form group/part/quantity, so that they group in a viewer."""

    scalars: dict[str, float] = field(default_factory=dict)
    """Finite numbers by name."""
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    """One-dimensional float64 samples by name."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a number, or a whole group, could not be measured: one sentence by name."""
    pattern: str = ""
    """What one sequence was as a pattern: the vector that every energy, radius and log Z here is of."""
    seconds: float = 0.0
    """Wall time of the probe, forward passes included."""

    def add(self, name: str, value: float) -> None:
        """Record a number, or the reason why there is none."""
        if math.isfinite(value):
            self.scalars[name] = float(value)
        else:
            self.reasons[name] = f"{name} is {value}, beyond the range of floating numbers"

    def add_distribution(self, name: str, values_Q: Tensor) -> None:
        """Record the mean, the 5 %, 50 % and 95 % quantiles, and the sample itself of finite values."""
        sample_Q = values_Q.detach().to(torch.float64).cpu().numpy()
        self.histograms[name] = sample_Q
        self.add(f"{name}_mean", float(sample_Q.mean()))
        for share, value in zip((5, 50, 95), np.quantile(sample_Q, (0.05, 0.5, 0.95)), strict=True):
            self.add(f"{name}_q{share:02d}", float(value))
