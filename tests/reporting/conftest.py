import json
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from helpers import made_sweep


@pytest.fixture(scope="session")
def made() -> ModuleType:
    return made_sweep


@pytest.fixture(scope="session")
def sweep(tmp_path_factory) -> Path:
    """3 N by 4 D, 1000 steps each."""
    return made_sweep.write_sweep(tmp_path_factory.mktemp("results") / "made")


class PageReader(HTMLParser):
    """The visible text of a page, its scripts, the charts that it draws, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.loads, self.scripts, self._inside = "", [], [], ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    @property
    def charts(self) -> list:
        return json.loads(self.scripts[1])["charts"]

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [found[name] for name in ("src", "href", "action", "srcset", "poster") if name in found]
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


@pytest.fixture(scope="session")
def read_page():
    return PageReader
