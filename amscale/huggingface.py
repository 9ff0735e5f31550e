"""Configurations and weights from a folder or the Hugging Face hub, with errors of one line.

The hub is asked once, briefly, before its libraries are used: without a network they retry for half a minute.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

from amscale.errors import InputError

_SECONDS = 5.0


@cache
def unavailable(name: str, file: str = "config.json", kind: Literal["model", "dataset"] = "model") -> str | None:
    """Return why the hub does not give us a repository: its answer, no network, HF_HUB_OFFLINE; None where it does.

    Where there is a reason, take the repository from the library's cache or not at all (`local_files_only`).

    Args:
        name: of the repository.
        file: to ask for in the repository; it may be missing there.
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
    """Return the first line of an error, short enough for a message; the name of its class where it has no text."""
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__


_WEIGHTS = "model.safetensors"


@cache
def load_configuration(name: str, key: str, trust_remote_code: bool = False) -> Any:
    """Return the transformers configuration of a folder or of a name on the hub; without a network, from the cache.

    Args:
        name: folder with `config.json`, or name on the hub such as `mistralai/Mistral-7B-v0.1`.
        key: the setting that gives the name, for messages.
        trust_remote_code: run Python code that comes with the configuration.

    Raises:
        InputError: the configuration is missing, cannot be read, or needs code that is not trusted.
    """
    from transformers import AutoConfig

    place = Path(name).expanduser()
    local = place.is_dir()
    missing = None if local else unavailable(name)
    try:
        return AutoConfig.from_pretrained(
            str(place) if local else name,
            trust_remote_code=trust_remote_code,
            local_files_only=missing is not None,
        )
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{key} = {name}: its configuration comes with Python code; give model.trust_remote_code=true to run it"
            ) from None
        if missing is not None:
            raise InputError(
                f"{key} = {name}: no such folder here, and config.json of that name could not be fetched from the "
                f"Hugging Face hub ({missing}); give a folder with config.json (and weights where they are wanted), or "
                "the network"
            ) from None
        raise InputError(f"{key} = {name}: its config.json cannot be read ({first_line(error)})") from None


def weights_file(name: str) -> str:
    """Return the path of the published weights that `model.pretrained` names, in a folder or from the hub.

    Raises:
        InputError: the folder has no such file, or the hub does not give it.
    """
    place = Path(name).expanduser()
    if place.is_dir():
        if not (place / _WEIGHTS).is_file():
            raise InputError(f"model.pretrained = {name}: the folder has no {_WEIGHTS}; give a folder with it")
        return str(place / _WEIGHTS)
    from huggingface_hub import hf_hub_download

    missing = unavailable(name)
    try:
        return hf_hub_download(name, _WEIGHTS, local_files_only=missing is not None)
    except OSError as error:
        raise InputError(
            f"model.pretrained = {name}: {_WEIGHTS} could not be fetched from the Hugging Face hub "
            f"({missing or first_line(error)}); give a folder that holds it beside config.json"
        ) from None
