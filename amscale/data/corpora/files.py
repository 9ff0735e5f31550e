"""What corpora in local files have in common."""

from typing import Any, ClassVar

from amscale.data.files import find_files, fingerprint
from amscale.data.settings import TextSettings


class FileSettings(TextSettings):
    """Natural text in local files, told by what they hold and not by where they lie."""

    files: str | tuple[str, ...]
    """Paths or patterns such as `crawl/*.jsonl.gz` or `books/**/*.txt`, relative to where the command runs; taken in
    sorted order."""

    more: ClassVar[str] = "data.files"

    def content(self) -> dict[str, Any]:
        return {"files": [fingerprint(path) for path in find_files(self.files)]}
