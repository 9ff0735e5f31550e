"""Settings of the measurements made while training."""

from typing import Literal

from pydantic import Field, field_validator

from amscale.settings import Settings, Size

Pattern = Literal["last_token", "mean_token", "flattened"]


class ProbeSettings(Settings):
    """What is measured inside the network while it trains. Training is the same with and without."""

    every: Size = Field(250, ge=0)
    """Steps between probes. The last step is probed too; 0 probes it alone."""
    sequences: Size = Field(128, ge=0)
    """Training sequences that are stored as patterns, and as many validation sequences as queries. 0 probes nothing."""
    pattern: Pattern = "last_token"
    """What one sequence is: its last token's activation, the mean over its tokens, or the whole padded sequence."""
    prefix: int = Field(8, ge=1)
    """Tokens of a training sequence that are given when its exact continuation is asked for."""
    continuation: int = Field(8, ge=1)
    """Tokens that follow the prefix and are to be reproduced exactly, each the likeliest. Shorter sequences are left
    out."""

    @field_validator("sequences")
    @classmethod
    def _a_neighbour(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one pattern has no neighbour; give 2 or more, or 0 to probe nothing")
        return value
