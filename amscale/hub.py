"""One quick question to the Hugging Face hub before its libraries are used: without a network they retry for long."""

from functools import cache
from typing import Literal

_SECONDS = 5.0


@cache
def why_not(name: str, file: str = "config.json", kind: Literal["model", "dataset"] = "model") -> str | None:
    """Why the hub has no such repository for us: its own words, no network, or HF_HUB_OFFLINE; None: it has it.

    What is given should then be taken from the library's cache or not at all (`local_files_only`).

    Args:
        file: of the repository, to ask for; it need not be there.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(name, file, repo_type=kind), timeout=_SECONDS)
    except EntryNotFoundError:
        return None
    except Exception as error:  # whatever the network, the hub or the name's own form says
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
    """The first line of what an error says, short enough for a message; its kind where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0][:160] if said else type(error).__name__
