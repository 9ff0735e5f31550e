"""What all records of a sweep's folder have in common: their format, kinds of numbers, and how they are checked."""

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from amscale.errors import InputError
from amscale.files import is_number

FORMAT = 1
"""Version of a sweep folder's layout and of the records in it. Another version is an error, and is not overwritten."""


def _number(value: Any) -> float:
    if not is_number(value):
        raise ValueError("a number")
    return value  # type: ignore[no-any-return]  # a whole number stays whole, so that it is written as it was


def _amount(value: Any) -> float:
    if not is_number(value) or not math.isfinite(value) or value < 0:
        raise ValueError("a finite number of at least 0")
    return value  # type: ignore[no-any-return]


def count(value: Any) -> int:
    if _amount(value) != int(value):
        raise ValueError("a whole number")
    return int(value)


Number = Annotated[float, PlainValidator(_number)]
"""A measured number: infinite or undefined where a run diverged."""
Amount = Annotated[float, PlainValidator(_amount)]
"""A finite number of at least 0."""
Count = Annotated[int, PlainValidator(count)]
"""A whole number of at least 0."""


class Record(BaseModel):
    """Base of the records: frozen, and tolerant of keys that another version added."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_tree(self) -> dict[str, Any]:
        """Return the fields that were given, as plain data in the order of their declaration."""
        return self.model_dump(exclude_unset=True)


R = TypeVar("R", bound=Record)


def checked(kind: type[R], tree: Any, source: Path, advice: str) -> R:
    """Check plain data that was read from a file.

    Args:
        kind: the record that it must be.
        tree: the data.
        source: the file.
        advice: what to do if the data is not such a record.

    Raises:
        InputError: another format, or a field that is missing or wrong; names file, field and advice.
    """
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise InputError(f"{source}: written by another version; this one reads format {FORMAT}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {_complaint(error)}; {advice}") from None


_KINDS = {
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "list_type": "a list",
    "int_type": "a whole number",
    "bool_type": "true or false",
}


def _complaint(error: ValidationError) -> str:
    """Describe the first field that is missing or wrong."""
    first = error.errors(include_url=False)[0]
    name, value = ".".join(map(str, first["loc"])), first["input"]
    if first["type"] == "missing" or value is None:
        return f"{name} is missing"
    kind = _KINDS.get(first["type"]) or first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{name}={str(value)[:60]!r} is not {kind}"
