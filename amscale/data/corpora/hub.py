"""Any data set of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from amscale.data.files import blocks, fingerprint
from amscale.data.hub import hub_texts
from amscale.data.settings import TextSettings


class Hub(TextSettings):
    """A data set of the Hugging Face hub, one document a row, streamed while it is tokenised."""

    corpus: Literal["hub"]
    """Which corpus this is."""
    name: str
    """The data set, such as `wikimedia/wikipedia`, or a folder with its files."""
    configuration: str | None = None
    """Which of the data set's configurations, where it has several."""
    hub_split: str = "train"
    """What the data set calls the part to read. Validation documents are held out of it; see `split`."""
    revision: str | None = None
    """A branch, a tag or a commit. Without one a store, once built, stays as it is when the data set changes."""
    text_column: str = "text"
    """The column that holds the text."""

    more: ClassVar[str] = "data.name"

    def content(self) -> dict[str, Any]:
        folder = Path(self.name)
        if not folder.is_dir():
            return {}
        return {"name": [fingerprint(path) for path in sorted(folder.rglob("*")) if path.is_file()]}

    def texts(self) -> Iterator[list[str]]:
        return blocks(hub_texts(self.name, self.configuration, self.hub_split, self.revision, self.text_column))
