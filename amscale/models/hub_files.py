"""Configurations on this machine or on the Hugging Face hub, and one line for the user where there is none."""

from functools import cache
from pathlib import Path
from typing import Any

from amscale.errors import InputError

_SECONDS = 10.0


@cache
def load_configuration(name: str, key: str, trust_remote_code: bool = False) -> Any:
    """The transformers configuration of a folder or of a name on the hub; the library's cache is asked first.

    Args:
        name: folder that holds `config.json`, or name on the hub such as `mistralai/Mistral-7B-v0.1`.
        key: the setting that gave the name, for the message of an error.
        trust_remote_code: run Python code that comes with the configuration.

    Raises:
        InputError: there is no such configuration, it cannot be read, or it needs code that is not trusted.
    """
    from huggingface_hub import try_to_load_from_cache
    from transformers import AutoConfig

    place = Path(name).expanduser()
    local = place.is_dir()
    if not local and not isinstance(try_to_load_from_cache(name, "config.json"), str):
        _ask_hub(name, key)
    try:
        return AutoConfig.from_pretrained(str(place) if local else name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{key} = {name}: its configuration comes with Python code of its own; give "
                "model.trust_remote_code=true to run it"
            ) from None
        raise InputError(f"{key} = {name}: its config.json cannot be read ({first_line(error)})") from None


def _ask_hub(name: str, key: str) -> None:
    """One quick question, so that a missing network is known without the library's retries."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_SECONDS)
    except Exception as error:  # whatever the network, the hub or the name's own form says
        raise InputError(
            f"{key} = {name}: there is no such folder here, and config.json of that name could not be had from the "
            f"Hugging Face hub ({first_line(error)}); give a folder with config.json (and weights where they are "
            "wanted), or the network"
        ) from None


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
