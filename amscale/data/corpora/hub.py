"""Any data set of the Hugging Face hub, streamed: none of its files is kept on disk."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from amscale.data.corpus import TextCorpus, Unreachable
from amscale.data.file_patterns import expand_home
from amscale.data.readers import blocks, fingerprint, unusable
from amscale.errors import InputError
from amscale.huggingface import first_line, unavailable


def hub_texts(name: str, configuration: str | None, part: str, revision: str | None, column: str) -> Iterator[str]:
    """Yield the texts of one column, in the order of the data set.

    Args:
        name: of a data set on the hub, or the path of a folder with its files.
        configuration: where the data set has several.
        part: what the hub calls a split, such as `train`.
        revision: a branch, a tag or a commit.

    Raises:
        Unreachable: no data set of that name, no network, or a connection that broke.
        InputError: the column is missing, or a row of it is not text.
    """
    place = expand_home(name)
    missing = None if place.is_dir() else unavailable(name, "README.md", "dataset")
    if missing is not None:
        raise _unreachable(name, configuration, part, missing)
    import datasets

    row = 0
    try:
        source = str(place) if place.is_dir() else name
        dataset = datasets.load_dataset(source, configuration, split=part, revision=revision, streaming=True)
        for batch in dataset.iter(batch_size=256):
            for text in _column(batch, column, name, row):
                row += 1
                yield text
    except InputError:
        raise
    except Exception as error:  # the library raises many kinds for a missing name, part, file or network
        if place.is_dir():
            raise InputError(
                f"data.name: after row {row} of the folder {name}: {first_line(error)}; mend its files, or read them "
                "with corpus: jsonl, parquet or text, which name file and row"
            ) from None
        raise _unreachable(name, configuration, part, f"row {row}: {first_line(error)}") from None


def _unreachable(name: str, configuration: str | None, part: str, reason: str) -> Unreachable:
    return Unreachable(
        f"data: {part} of the data set {name!r}{f' ({configuration})' if configuration else ''} cannot be read "
        f"from the Hugging Face hub ({reason}); check the name and the network, or download the data set's Parquet, "
        "Arrow or JSON Lines files and give them as data.files, with corpus: parquet or jsonl"
    )


def _column(batch: dict[str, list[Any]], column: str, name: str, row: int) -> list[str]:
    if column not in batch:
        raise InputError(f"data.text_column: {name} has no column {column!r}; it has {', '.join(map(repr, batch))}")
    for place, text in enumerate(batch[column], 1):
        if not isinstance(text, str):
            raise InputError(
                f"data.text_column: row {row + place} of {name} holds {type(text).__name__}, not text, in {column!r}; "
                "name another column"
            )
        if reason := unusable(text):
            raise InputError(
                f"data: row {row + place} of {name} holds {reason} in {column!r}; leave it out, or mend it"
            )
    return batch[column]


class HubCorpus(TextCorpus):
    """A data set of the Hugging Face hub, one document a row, streamed while it is tokenised."""

    corpus: Literal["hub"] = "hub"
    name: str
    """The data set, such as `wikimedia/wikipedia`, or a folder that holds its files."""
    configuration: str | None = None
    """Configuration of the data set, where it has several."""
    hub_split: str = "train"
    """Split of the data set to read. Validation documents are held out of it; see `split`."""
    revision: str | None = None
    """Branch, tag or commit. None: the newest when the store is built; a later change of the data set does not rebuild
    it."""
    text_column: str = "text"
    """The column that holds the text."""

    enlarging_setting: ClassVar[str] = "data.name"

    def content(self) -> dict[str, Any]:
        folder = expand_home(self.name)
        if not folder.is_dir():
            return {}
        return {"name": [fingerprint(path) for path in sorted(folder.rglob("*")) if path.is_file()]}

    def texts(self) -> Iterator[list[str]]:
        return blocks(hub_texts(self.name, self.configuration, self.hub_split, self.revision, self.text_column))
