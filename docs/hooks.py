"""Add to the site what is no page by itself: README as its home, CONTRIBUTING, CHANGELOG, experiments, the notebook."""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the root and the pages that they become."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; MkDocs calls this with the files of docs/."""
    pages = {page: _moved((ROOT / source).read_text(encoding="utf-8")) for source, page in PAGES.items()}
    for page, text in {**pages, "experiments.md": _experiments(), "notebook.md": _notebook()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def _moved(text: str) -> str:
    """Return a text of the root with its links as they are from docs/."""
    text = text.replace("](docs/", "](").replace("](configs)", "](experiments.md)")
    for source, page in PAGES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text


def _notebook() -> str:
    """Return a page of the cells of the notebook."""
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts) + "\n"


def _experiments() -> str:
    """Return a page of the files of configs/."""
    parts = ["# Experiments\n\nThe files of `configs/`; those that end in `_cpu` are small enough for a CPU.\n"]
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        parts.append(f"## {path.name}\n\n```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```\n")
    return "\n".join(parts)
