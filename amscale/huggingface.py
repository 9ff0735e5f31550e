"""Configurations and weights from a folder or the Hugging Face hub, with errors of one line.

The hub is asked once, briefly, before its libraries are used: without a network they retry for half a minute.
"""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Source:
    """Where transformers finds a configuration, weights or a tokenizer: a folder, a GGUF file, or a name on the hub."""

    arguments: dict[str, Any]
    """Arguments of its `from_pretrained`."""
    local: bool
    """It is on this machine, or would be."""
    missing: str | None
    """Why the hub does not give it; None where it does, and for what is local."""


def find_source(name: str, key: str) -> Source:
    """Find what a name stands for. A GGUF file, the format of llama.cpp, holds configuration, weights and tokenizer.

    Args:
        name: folder, file that ends in `.gguf`, or name on the hub.
        key: the setting that gives the name, for messages.

    Raises:
        InputError: a GGUF file that is not here, or without the package that reads it.
    """
    place = Path(name).expanduser()
    if place.is_dir():
        return Source({"pretrained_model_name_or_path": str(place)}, True, None)
    if place.suffix.lower() == ".gguf":
        if not place.is_file():
            raise InputError(
                f"{key} = {name}: no such file; give the path of a GGUF file, a folder or a name on the hub"
            )
        try:
            import gguf  # noqa: F401
        except ImportError:
            raise InputError(
                f"{key} = {name}: a GGUF file needs the package gguf; pip install gguf, or give a folder that "
                "save_pretrained has written"
            ) from None
        return Source({"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name}, True, None)
    missing = unavailable(name)
    return Source({"pretrained_model_name_or_path": name, "local_files_only": missing is not None}, False, missing)


_WEIGHTS = "model.safetensors"


@cache
def load_configuration(name: str, key: str, trust_remote_code: bool = False) -> Any:
    """Return the transformers configuration of a folder or of a name on the hub; without a network, from the cache.

    Args:
        name: folder with `config.json`, GGUF file, or name on the hub such as `mistralai/Mistral-7B-v0.1`.
        key: the setting that gives the name, for messages.
        trust_remote_code: run Python code that comes with the configuration.

    Raises:
        InputError: the configuration is missing, cannot be read, or needs code that is not trusted.
    """
    from transformers import AutoConfig

    source = find_source(name, key)
    missing = source.missing
    try:
        return AutoConfig.from_pretrained(**source.arguments, trust_remote_code=trust_remote_code)
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
        raise InputError(f"{key} = {name}: its configuration cannot be read ({first_line(error)})") from None


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
