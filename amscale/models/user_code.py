"""Code of the user's: where a function that builds a network is, how it is called, and what identifies code.

It is named by its module and function, `my_package.models:build`, or by a file, `models.py:build`. A module that Python
finds in the folder of a sweep's command is found in the sweep's trials too, for its folder is part of their settings.
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.machinery import PathFinder
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from amscale.errors import InputError, one_line

_PACKAGES = {"site-packages", "dist-packages"}


class Builder(NamedTuple):
    """A function, by name."""

    module: str
    """Dotted name of its module."""
    function: str
    folder: str
    """Folder that the module is imported from."""

    @property
    def name(self) -> str:
        """Module and function, as settings name them."""
        return f"{self.module}:{self.function}"


def locate(text: str, folder: str | None = None) -> Builder:
    """Return the builder that a setting names, without importing it.

    Args:
        text: `module:function` or `path/to/file.py:function`.
        folder: folder to import it from; None: the file's own, or the one in which Python finds the module.

    Raises:
        InputError: not written so, or no such file or module on this machine.
    """
    module, _, function = text.rpartition(":")
    if not module or not function.isidentifier():
        raise InputError(
            f"model.builder={text!r} names no function; give module:function, such as my_package.models:build, or "
            "file.py:function"
        )
    if module.endswith(".py"):
        path = Path(os.path.expanduser(module)).absolute()
        if folder is None and not path.is_file():
            raise InputError(f"model.builder: there is no file {path}; give one, or module:function")
        return Builder(path.stem, function, folder or str(path.parent))
    if folder is None:
        folder = _folder_of(module)
    return Builder(module, function, folder)


def _folder_of(module: str) -> str:
    """Return the folder of Python's path that a module is found in."""
    top = module.partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        found = None
    here = os.getcwd()
    if found is None and (Path(here, f"{top}.py").is_file() or Path(here, top).is_dir()):
        return here
    if found is None or not (found.origin or found.submodule_search_locations):
        raise InputError(
            f"model.builder: there is no module {module} in {here} or on Python's path; give the path of a file, "
            "change to its folder, or install its package"
        )
    if found.submodule_search_locations:
        return str(Path(next(iter(found.submodule_search_locations))).parent.absolute())
    return str(Path(str(found.origin)).parent.absolute())


def load(builder: Builder) -> Callable[..., Any]:
    """Import the module, anew where it was edited since, and return the function.

    Raises:
        InputError: it cannot be imported, or has no such function.
    """
    if builder.folder not in sys.path:
        sys.path.append(builder.folder)
    _forget_edited(builder)
    try:
        module = import_module(builder.module)
    except Exception as error:  # whatever a user's module does on import
        raise InputError(
            one_line(f"model.builder: {builder.module} cannot be imported: {type(error).__name__}: {error}", most=400)
        ) from error
    function = getattr(module, builder.function, None)
    if not callable(function):
        raise InputError(f"model.builder: {builder.module} ({module.__file__}) has no function {builder.function}")
    return function  # type: ignore[no-any-return]


class _Finder(ModuleFinder):
    """A ModuleFinder that also reads packages without `__init__.py`, of which Python's own fails."""

    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        """Return what `load_module` needs of a module: for such a package its folder."""
        full = name if parent is None else f"{parent.__name__}.{name}"
        if full not in self.excludes:
            spec = PathFinder.find_spec(name, self.path if path is None else path)
            if spec is not None and spec.loader is None and spec.submodule_search_locations:
                return None, next(iter(spec.submodule_search_locations)), _NO_CODE
        return super().find_module(name, path, parent)

    def load_module(self, fqname: str, fp: Any, pathname: str, file_info: Any) -> Any:
        """Read a module; a package without `__init__.py` has no code of its own, only a folder of modules."""
        if file_info is not _NO_CODE:
            return super().load_module(fqname, fp, pathname, file_info)
        module: Any = self.add_module(fqname)
        module.__path__ = [pathname]
        return module


_NO_CODE = ("", "", None)
"""What `find_module` says of a package without `__init__.py`; `load_module` knows it by its identity."""


class _Code(NamedTuple):
    """Code that was read: the file of each of its modules, when each was changed last, and the hash of all."""

    files: dict[str, str]
    changed: dict[str, int]
    hash: str


_read: dict[Builder | Path, _Code] = {}
"""What was read of each builder and script; it is read again once a file has changed."""
_imported: dict[str, int] = {}
"""When each file of a builder was changed last as it was imported here."""


def source_hash(builder: Builder) -> str:
    """Return twelve hexadecimal digits of the code of the builder's module and of what it imports from its folder.

    Of an installed package only its own modules count. The code is read, not run. An edit counts at once, also within
    one process, such as a notebook's.

    Raises:
        InputError: no such module on this machine, or code that Python cannot read.
    """
    return _code_of(builder).hash


def _code_of(builder: Builder) -> _Code:
    def read() -> ModuleFinder:
        own = builder.module.partition(".")[0]
        finder = _Finder([builder.folder], excludes=_others(Path(builder.folder), own))
        try:
            finder.import_hook(builder.module)
        except (ImportError, SyntaxError) as error:
            raise InputError(
                one_line(
                    f"model.builder: {builder.module} cannot be read in {builder.folder}: {type(error).__name__}: "
                    f"{error}; give every machine the same folder, or install the package"
                )
            ) from None
        return finder

    return _current(builder, read)


def _forget_edited(builder: Builder) -> None:
    """Drop the builder's modules from those that are imported if one was edited: Python would keep the former code.

    A module that others have imported counts as edited if its file was since this process started.
    """
    code = _code_of(builder)
    started = psutil.Process().create_time() * 1e9
    if any(when != _imported[file] if file in _imported else when > started for file, when in code.changed.items()):
        for name in code.files:
            if name.partition(".")[0] != "amscale":  # run from its own folder, a builder that imports it finds it there
                sys.modules.pop(name, None)
        importlib.invalidate_caches()
    _imported.update(code.changed)


def script_hash(path: Path) -> str:
    """Return twelve hexadecimal digits of the code of a script and of what it imports from its folder.

    An edit counts at once, also within one process, such as a notebook's.

    Raises:
        InputError: no such file on this machine, or code that Python cannot read.
    """

    def read() -> ModuleFinder:
        finder = _Finder([str(path.parent)], excludes=_others(path.parent, ""))
        try:
            finder.run_script(str(path))
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(
                one_line(f"train.script={str(path)!r} cannot be read: {error}; give a Python file")
            ) from None
        return finder

    return _current(path, read).hash


def _current(key: Builder | Path, read: Callable[[], ModuleFinder]) -> _Code:
    """Return the code of a builder or script as it is now, read again if a file has changed."""
    code = _read.get(key)
    if code is None or code.changed != _changed(code.changed):
        finder = read()
        files = _files(finder)
        code = _read[key] = _Code(files, _changed(files.values()), _hash(finder))
    return code


def _changed(files: Iterable[str]) -> dict[str, int]:
    """Return when each file was changed last, in nanoseconds since 1970; a file that is gone has none."""
    return {file: os.stat(file).st_mtime_ns for file in files if os.path.exists(file)}


def _others(folder: Path, own: str) -> list[str]:
    """Return what is no code of the user's: amscale, and beside a package that is installed all that is there."""
    ours = [] if own == "amscale" else ["amscale"]
    if not _PACKAGES & set(folder.parts):
        return ours
    return [*ours, *(path.stem for path in folder.iterdir() if path.stem != own)]


def _files(finder: ModuleFinder) -> dict[str, str]:
    """Return the files that were read, by the names of their modules, sorted."""
    found = {name: getattr(module, "__file__", None) for name, module in sorted(finder.modules.items())}
    return {name: str(file) for name, file in found.items() if file}


def _hash(finder: ModuleFinder) -> str:
    digest = hashlib.sha256()
    for name, file in _files(finder).items():
        digest.update(name.encode() + b"\0" + Path(file).read_bytes() + b"\0")
    return digest.hexdigest()[:12]
