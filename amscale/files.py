"""Files that travel with the package: `configs` and `launch`."""

from importlib import resources
from pathlib import Path


def packaged(folder: str) -> Path:
    """A folder of the project: inside the package where it was installed from a wheel, beside it in a checkout."""
    inside = Path(str(resources.files("amscale"))) / folder
    return inside if inside.is_dir() else inside.parents[1] / folder
