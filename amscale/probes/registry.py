"""The built-in probes and those of installed packages by name, and the section `probes` of a configuration."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, field_validator

from amscale.errors import InputError
from amscale.probes.interface import Probe
from amscale.probes.measurement import LAYER_PART, Pattern, ProbeColumn
from amscale.registry import Registry
from amscale.settings import AutoOrCount, Settings, Size, describe_error

BUILT_IN = {
    "energy": "amscale.probes.energy:Energy",
    "radius": "amscale.probes.radius:Radius",
    "memorisation": "amscale.probes.memorisation:Memorisation",
    "attention": "amscale.probes.attention:AttentionProbe",
}
"""Measured in every run, in this order; the settings of these are keys of `probes` itself."""

PROBES: Registry[type[Probe]] = Registry("amscale.probes", BUILT_IN)
"""Probe classes by name."""


def probe_class(name: str) -> type[Probe]:
    """Return the probe of that name.

    Raises:
        KeyError: no such name.
        InputError: its package cannot be imported, or what it registers is not a probe of that name.
    """
    found = PROBES[name]
    if not (isinstance(found, type) and issubclass(found, Probe)) or getattr(found, "name", None) != name:
        raise InputError(
            f"entry point {name!r} of amscale.probes is {found!r}; it must be a subclass of amscale.probes.Probe with "
            f"name = {name!r}: mend or uninstall the package"
        )
    return found


def added_settings(name: str, given: dict[str, Any]) -> Settings:
    """Check the settings that a configuration gives to a probe of an installed package.

    Raises:
        InputError: no such probe, or settings that it does not take.
    """
    if name in BUILT_IN:
        raise InputError(f"{name} is built in and always measured; leave it out")
    if name not in set(PROBES):
        added = ", ".join(sorted(set(PROBES) - set(BUILT_IN)))
        allowed = f"allowed are {added}" if added else "no installed package adds one; docs/probes.md says how"
        raise InputError(f"there is no probe {name!r}; {allowed}")
    settings = probe_class(name).Settings
    unknown = [key for key in given if key not in settings.model_fields]
    if unknown:
        allowed = f"allowed are {', '.join(settings.model_fields)}" if settings.model_fields else "it has no settings"
        raise InputError(f"unknown key {name}.{unknown[0]}; {allowed}")
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{name}.{describe_error(error, given)}") from None


def build_probes(settings: "ProbeSettings") -> list[Probe]:
    """Return the built-in probes and those that `probes.extra` names, in this order."""
    probes = []
    for name in BUILT_IN:
        probe = probe_class(name)
        probes.append(probe(probe.Settings(**{key: getattr(settings, key) for key in probe.Settings.model_fields})))
    return probes + [probe_class(name)(added_settings(name, given)) for name, given in settings.extra.items()]


_QUANTILE = re.compile(r"_q\d\d$")


def columns_of(records: Sequence[Mapping[str, float]]) -> list[ProbeColumn]:
    """Return the columns for these records: those that probes declare, then one for each tag of any other probe.

    A column without a number in any record is left out. Of a layer's tags the last layer's is shown; the quantiles of a
    distribution whose mean is shown are left out.

    Args:
        records: values by tag, one mapping per record.

    Raises:
        InputError: a package adds a probe that measured here, and cannot be loaded.
    """

    tags = list(dict.fromkeys(tag for values in records for tag in values))
    groups = dict.fromkeys(tag.split("/")[0] for tag in tags)
    probes = [probe_class(name) for name in BUILT_IN]
    known = {group for probe in probes for group in probe.tag_groups()}
    probes += [probe_class(group) for group in groups if group not in known and group in PROBES]
    columns = [column for probe in probes for column in probe.columns]
    declared = known | {group for probe in probes if probe.columns for group in probe.tag_groups()}
    columns += _by_tag(tag for tag in tags if tag.split("/")[0] not in declared)
    return [column for column in columns if any(column.text(values) for values in records)]


def _by_tag(tags: Iterable[str]) -> list[ProbeColumn]:
    patterns = dict.fromkeys(LAYER_PART.sub("{layer}", tag, count=1) for tag in tags)
    return [
        ProbeColumn(pattern.format(layer="last layer"), pattern)
        for pattern in patterns
        if not _QUANTILE.search(pattern) or _QUANTILE.sub("_mean", pattern) not in patterns
    ]


class ProbeSettings(Settings):
    """What is measured inside the network while it trains. Training is the same with and without."""

    every: AutoOrCount = "auto"
    """Steps between probes. The last step is probed too; 0 probes it alone. auto: so that those before the last take
    about 1 % of the steps' time, evenly spaced and at most 50; 250 where trials share a beginning."""
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
    histogram_layers: int = Field(3, ge=0)
    """Layers of which TensorBoard gets histograms and charts, at most: the last, the first, and some evenly between."""
    extra: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Probes of installed packages to measure too: each name with the probe's settings, `{my_probe: {}}`
    (docs/probes.md)."""

    @property
    def planned_every(self) -> int:
        """Steps between probes in the settings of a trial that is planned, where `auto` is a number."""
        assert self.every != "auto", "a plan gives the interval of probes as a number"
        return self.every

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
