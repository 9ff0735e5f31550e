"""Settings of the measurements made while training."""

from typing import Any, Literal

from pydantic import Field, field_validator

from amscale.errors import InputError
from amscale.probes.registry import added_settings
from amscale.settings import Settings, Size

Pattern = Literal["last_token", "mean_token", "flattened"]


class ProbeSettings(Settings):
    """What is measured inside the network while it trains. Training is the same with and without."""

    every: Size = Field(250, ge=0)
    """Steps between probes. The last step is probed too; 0 probes it alone."""
    sequences: Size = Field(128, ge=0)
    """Training sequences that are stored as patterns, and as many validation sequences as queries. 0 probes nothing."""
    pattern: Pattern = "last_token"
    """Which vector represents a sequence: its last token's activation, the mean over its tokens, or the whole padded
    sequence."""
    prefix: int = Field(8, ge=1)
    """Tokens of a training sequence that are given when its exact continuation is asked for."""
    continuation: int = Field(8, ge=1)
    """Tokens that follow the prefix and are to be reproduced exactly, each the likeliest. Shorter sequences are left
    out."""
    extra: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Probes of installed packages to measure too: each name with the probe's settings, `{my_probe: {}}`
    (docs/probes.md)."""

    @field_validator("sequences")
    @classmethod
    def _has_a_neighbour(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one pattern has no neighbour; give 2 or more, or 0 to probe nothing")
        return value

    @field_validator("extra", mode="before")
    @classmethod
    def _empty_for_none(cls, value: Any) -> Any:
        """Read a name without settings, which YAML gives as null, as one with no settings."""
        if not isinstance(value, dict):
            return {} if value is None else value
        return {name: {} if given is None else given for name, given in value.items()}

    @field_validator("extra")
    @classmethod
    def _known_probes(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        try:
            for name, given in value.items():
                added_settings(name, given)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value
