"""The reference page of all settings, from the schema itself:

python -m amscale.config.reference > docs/configuration.md
"""

from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from amscale.config.schema import Experiment

_INTRODUCTION = """# Configuration

One YAML file is one experiment. Every key can be overridden on the command line by `key=value`; a key of `model`,
`data`, `train`, `probes`, `launch`, and `seed` can be an axis of `grid`. Sizes are written in full or as `400k`,
`1.5M`, `9B`, `2e6`. An unknown key is an error. This page comes from the schema: `python -m amscale.config.reference`.
"""


def reference() -> str:
    """The page as Markdown."""
    parts = [_INTRODUCTION, "## Top level\n", _table({k: f for k, f in Experiment.model_fields.items()})]
    for name, field in Experiment.model_fields.items():
        for model in _models(field.annotation):
            tags = [get_args(f.annotation)[0] for n, f in model.model_fields.items() if n in ("family", "corpus")]
            parts.append("## " + ", ".join([name, *tags]) + "\n")
            parts.append(" ".join((model.__doc__ or "").split()) + "\n")
            parts.append(_table(model.model_fields))
    return "\n".join(parts)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes in an annotation: one of a section, several of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    return [model for part in get_args(annotation) for model in _models(part)] if _is_union(annotation) else []


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"


def _table(fields: dict[str, FieldInfo]) -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        description = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {_default(field)} | {description} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None:
        return ""
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{list(field.default) if isinstance(field.default, tuple) else field.default}`"


if __name__ == "__main__":
    print(reference(), end="")
