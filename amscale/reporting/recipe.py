"""How a finished trial is trained again: versions, configuration, commands, and what differs on this machine."""

import copy
import platform
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from amscale import __version__
from amscale.errors import InputError
from amscale.trials.records import TrialResult
from amscale.trials.trial_store import TrialStore


@dataclass(frozen=True)
class Recipe:
    """What trains a finished trial again."""

    trial: str
    """Its id, which the new trial has too."""
    label: str
    versions: dict[str, str]
    differs: dict[str, tuple[str, str | None]]
    """Versions of then and of here where these are others; None where a package is not installed."""
    device: str
    """Model of the processor or GPU of then."""
    configuration: str
    """YAML that names this one trial, placed as it was."""
    storage: str
    """Where the trial of then is."""

    def commands(self, file: Path) -> list[str]:
        """Return the commands that train the trial again, with the configuration in a file."""
        pins = [f"{name}=={found}" for name, found in self.versions.items() if name not in ("python", "amscale")]
        amscale = self.versions.get("amscale")
        packages = [*([f"amscale=={amscale}"] if amscale else []), *pins]
        again = shlex.join(["python", "-m", "amscale.sweep", str(file)])
        return [shlex.join(["python", "-m", "pip", "install", *packages]), again]

    def to_document(self, file: Path) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "trial": self.trial,
            "label": self.label,
            "versions": self.versions,
            "differs": {name: {"then": then, "here": here} for name, (then, here) in self.differs.items()},
            "device": self.device,
            "configuration": self.configuration,
            "commands": self.commands(file),
        }

    def describe(self, file: Path, written: bool) -> str:
        """Return a shell script that does it, with what a reader should know as comments.

        Args:
            file: of the configuration.
            written: whether it has been written; otherwise the script writes it.
        """
        install, again = self.commands(file)
        lines = [f"# {self.label}: trained with Python {self.versions.get('python', '(unknown)')} on {self.device}"]
        lines += [f"# here: {name} {here or 'is missing'}, then {then}" for name, (then, here) in self.differs.items()]
        lines += [install] if any(name != "python" for name in self.differs) else ["# versions here are those of then"]
        if not written:
            lines += [f"cat > {shlex.quote(str(file))} <<'EOF'", self.configuration.rstrip("\n"), "EOF"]
        lines += [again, f"# its result.json has the id {self.trial}; the one of then is in {self.storage}"]
        return "\n".join(lines)


def recipe_of(store: TrialStore, address: str) -> Recipe:
    """Return how a finished trial is trained again.

    Args:
        store: the trial's, on this machine.
        address: where it is, as a user names it.

    Raises:
        InputError: it has no result or no spec.
    """
    result = store.read_result()
    if result is None:
        raise InputError(f"{store.path}: not finished, it has no result.json; give the folder of a finished trial")
    spec = store.read_spec()
    settings = copy.deepcopy(spec.settings)
    settings["grid"] = {}
    settings["storage"] = "reproduced"
    settings.setdefault("launch", {}).update(_placement(result, spec.placement.machines))
    return Recipe(
        trial=spec.trial,
        label=spec.label,
        versions=result.versions,
        differs=_differences(result.versions),
        device=result.engine.device_name or result.engine.device or "an unknown device",
        configuration=yaml.safe_dump(settings, sort_keys=False),
        storage=address,
    )


def _placement(result: TrialResult, machines: int) -> dict[str, Any]:
    """Return the settings that place a trial as its engine said; the precision asked for stays, as part of its id."""
    engine = result.engine
    found = {
        "machines": machines,
        "processes_per_machine": engine.world_size // machines,
        "zero_stage": engine.zero_stage,
        "micro_batch": engine.micro_batch,
        "device": None if engine.device is None else engine.device.partition(":")[0],
    }
    return {"address": None, **{key: value for key, value in found.items() if value is not None}}


def _differences(then: dict[str, str]) -> dict[str, tuple[str, str | None]]:
    found = {name: (value, _here(name)) for name, value in then.items()}
    return {name: both for name, both in found.items() if both[0] != both[1]}


def _here(name: str) -> str | None:
    if name in ("python", "amscale"):
        return platform.python_version() if name == "python" else __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return None
