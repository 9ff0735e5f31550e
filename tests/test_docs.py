"""The pages of the documentation: each is in the navigation of the site, and what they link to is there."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *OUTSIDE]
MADE = {"index.md", "experiments.md", "notebook.md", "contributing.md", "changelog.md"}
"""Pages of the site that docs/hooks.py makes from files outside docs/."""


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$|^    .*?$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub forms them and MkDocs does of ASCII."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leaves(entry: object) -> list[str]:
    """Return the pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [leaf for child in children for leaf in leaves(child)]


def test_every_page_is_in_the_navigation_once():
    pages = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(pages) == sorted({path.name for path in PAGES if path.parent == ROOT / "docs"} | MADE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
        if page.parent == ROOT / "docs":
            assert target.resolve().is_relative_to(ROOT / "docs"), f"{link}: the site has no such page"


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "images").rglob("*.*"))
    assert pictures
    assert not [path.name for path in pictures if path.stat().st_size > 150_000]
