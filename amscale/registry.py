"""Registries: what amscale ships and what installed packages add, found by name.

A package adds to a registry by an entry point, without any edit in amscale:

    [project.entry-points."amscale.probes"]
    sparsity = "my_package.sparsity:Sparsity"

The groups are `amscale.families`, `amscale.corpora`, `amscale.policies`, `amscale.trackers`, `amscale.probes` and
`amscale.laws`. An object is imported when it is first asked for.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from amscale.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Objects by name: those that amscale ships, then those of entry points, in the order of their names.

    Args:
        group: group of entry points, such as `amscale.probes`.
        shipped: `module:attribute` of each object that amscale ships, by name.
    """

    def __init__(self, group: str, shipped: Mapping[str, str]) -> None:
        self.group = group
        self._shipped = dict(shipped)
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        """Return the object of that name.

        Raises:
            KeyError: no such name.
            InputError: its package cannot be imported.
        """
        if name not in self._loaded:
            if name in self._shipped:
                module, _, attribute = self._shipped[name].partition(":")
                self._loaded[name] = getattr(import_module(module), attribute)
            else:
                self._loaded[name] = self._load(self._entry_points[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._shipped
        yield from self._entry_points

    def __contains__(self, name: object) -> bool:
        """Return whether there is an object of that name; it is not imported for that."""
        return name in self._shipped or name in self._entry_points

    def __len__(self) -> int:
        return len(self._shipped) + len(self._entry_points)

    def find(self, name: str, setting: str) -> T:
        """Return the object of that name.

        Args:
            setting: the setting that names it, for the message.

        Raises:
            InputError: no such name; lists those there are.
        """
        if name not in self:
            raise InputError(f"{setting}={name!r}; allowed are {', '.join(self)}")
        return self[name]

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        found = sorted(entry_points(group=self.group), key=lambda point: point.name)
        return {point.name: point for point in found if point.name not in self._shipped}

    def _load(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except Exception as error:  # whatever a user's module does on import
            raise InputError(
                f"entry point {point.name!r} of {self.group} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}; mend or uninstall the package"
            ) from error
