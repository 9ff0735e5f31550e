"""The families by name."""

from amscale.models import gpt2, hub, openelm, vanilla
from amscale.models.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family for family in (vanilla.FAMILY, gpt2.FAMILY, openelm.FAMILY, hub.FAMILY)
}


def family_names() -> list[str]:
    """Names that `model.family` may take."""
    return list(FAMILIES)
