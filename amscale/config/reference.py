"""Write the reference page of all settings, from the schema:

python -m amscale.config.reference > docs/configuration.md
"""

from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from amscale.config.schema import Experiment
from amscale.data import CORPORA, Corpus

_INTRODUCTION = """# Configuration

One YAML file is one experiment. Every key can be overridden on the command line by `key=value`; a key of `model`,
`data`, `train`, `probes`, `launch`, and `seed` can be an axis of `grid`. Sizes are written in full or as `400k`,
`1.5M`, `9B`, `2e6`. An unknown key is an error. This page comes from the schema: `python -m amscale.config.reference`.
"""
_TAGS = ("family", "corpus")
"""Keys whose value chooses the settings class of a section."""


def reference() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION, "## Top level\n", _table(Experiment.model_fields)]
    for section, field in Experiment.model_fields.items():
        if section == "data":
            parts += _sections_with_base("data", "every corpus", Corpus, CORPORA.values())
            continue
        for model in _models(field.annotation):
            parts.append("## " + ", ".join([section, *_tag(model)]) + "\n")
            parts.append(" ".join((model.__doc__ or "").split()) + "\n")
            parts.append(_table(model.model_fields))
    return "\n".join(parts)


def _sections_with_base(
    section: str, title: str, base: type[BaseModel], models: Iterable[type[BaseModel]]
) -> list[str]:
    """Return the table of a base class, and for each model what it adds to the base and which defaults differ."""
    parts = [f"## {section}, {title}\n", _table({k: f for k, f in base.model_fields.items() if k not in _TAGS})]
    for model in models:
        parts.append(f"## {section}, {', '.join(_tag(model))}\n")
        parts.append(" ".join((model.__doc__ or "").split()) + "\n")
        added = {k: f for k, f in model.model_fields.items() if k not in base.model_fields}
        changed = [
            f"`{name}` {_default(field)}"
            for name, field in model.model_fields.items()
            if name in base.model_fields and name not in _TAGS and field.default != base.model_fields[name].default
        ]
        if added:
            parts.append(_table(added))
        if changed:
            parts.append(f"Other defaults: {', '.join(changed)}.\n")
    return parts


def _tag(model: type[BaseModel]) -> list[str]:
    """Return the value that chooses this settings class, where a key chooses it."""
    fields = model.model_fields
    return [get_args(fields[name].annotation)[0] for name in _TAGS if name in fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the settings classes in an annotation: one of a section, several of a union."""
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
