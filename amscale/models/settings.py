"""The settings of a model: those of its family, told apart by `family`."""

from typing import Annotated

from pydantic import Field

from amscale.models.gpt2 import GPT2Settings
from amscale.models.hub_settings import HubSettings
from amscale.models.openelm import OpenELMSettings
from amscale.models.vanilla import VanillaSettings

ModelSettings = Annotated[VanillaSettings | GPT2Settings | OpenELMSettings | HubSettings, Field(discriminator="family")]
