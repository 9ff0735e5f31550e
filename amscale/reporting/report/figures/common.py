"""What several figures share."""

from amscale.reporting.report.chart import Key
from amscale.reporting.report.gather import Sweep, Trial
from amscale.settings import format_size

N_TITLE = "N (parameters)"
D_TITLE = "D (unique tokens)"


def known_figures(sweep: Sweep, trials: list[Trial], memorised: bool = False) -> list[tuple[str, float]]:
    """What a floor is held against: 1, and what the corpus is known to allow where the trials agree on it."""
    found = [("1", 1.0)]
    facts = {"entropy": "entropy_per_token"} | ({"memorised": "memorised_per_token"} if memorised else {})
    for name, key in facts.items():
        value = sweep.fact(key, trials)
        if value is not None:
            found.append((f"{name} {value:.4g}", value))
    return found


def beside(known: list[tuple[str, float]]) -> str:
    """What the dotted lines of a figure are."""
    named = "1 nat per token" + (" and the known entropy of the corpus" if len(known) > 1 else "")
    return f" Dotted: {named}."


def size_keys(sweep: Sweep) -> list[Key]:
    """A key for each N."""
    return [Key(sweep.tone(N), format_size(N), sweep.tone(N)) for N in sweep.sizes]
