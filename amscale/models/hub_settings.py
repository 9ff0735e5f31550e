"""Settings of the hub family: which model of the transformers library, and which fields of its configuration."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from amscale.models.family import FamilySettings


class HubSettings(FamilySettings):
    """A causal language model of the transformers library. Without a size and a width it is the architecture's own
    shape; its weights always start from scratch."""

    family: Literal["hub"] = "hub"
    """An architecture of the transformers library."""
    architecture: str
    """Model type such as llama, mistral, mixtral or qwen3; or a folder with `config.json`, or a name on the Hugging
    Face hub, whose configuration is taken."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the configuration that are kept as given here, such as sliding_window or num_local_experts."""
    trust_remote_code: bool = False
    """Run Python code that comes with a configuration."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


@dataclass(frozen=True)
class HubOptions:
    """The settings that a shape keeps: enough to make its configuration again."""

    architecture: str
    """Model type."""
    base: str
    """Fields of the configuration to scale, as a JSON object; an empty one means the type's defaults."""
    given: str
    """Fields that the settings give, as JSON."""
    remote_code: str | None
    """Folder or hub name that trusted code comes from; None: the library's own classes."""


@dataclass(frozen=True)
class DerivedOptions(HubOptions):
    """Options of an architecture with fields of its own that follow the shape (`hub_fields.derived`).

    They are part of a trial's identity. A class of their own leaves the identities of all other trials as they were."""

    derived: tuple[str, ...]
    """Names of these fields, without those that the settings give."""
