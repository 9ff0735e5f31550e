"""The built-in probes and those of installed packages, by name."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from amscale.errors import InputError
from amscale.probes.probe import Probe
from amscale.registry import Registry
from amscale.settings import Settings, describe_error

if TYPE_CHECKING:
    from amscale.probes.settings import ProbeSettings

BUILT_IN = {
    "energy": "amscale.probes.energy:Energy",
    "radius": "amscale.probes.radius:Radius",
    "memorisation": "amscale.probes.memorisation:Memorisation",
    "attention": "amscale.probes.attention:Attention",
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
