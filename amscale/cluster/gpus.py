"""Ask NVIDIA's driver which GPUs this machine has, without torch, and without waiting long for an answer."""

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace

_ANSWER_SECONDS = 10.0
"""The program needs about a second; a driver that hangs never answers."""
_MOST_DIGITS = 12
_FIELDS = "uuid,name,memory.total,compute_cap,mig.mode.current"
_OLD_FIELDS = "uuid,name,memory.total"
"""Of drivers that do not know the other fields."""
_SLICE = re.compile(r"\s+MIG (\S*?(\d+)gb\S*)\s+Device\s+\d+:\s+\(UUID: (MIG-\S+)\)", re.ASCII)


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one slice of it (MIG)."""

    uuid: str
    name: str
    memory: int | None
    """Bytes; None where it is the machine's own (unified memory)."""
    bf16: bool
    is_slice: bool = False


@dataclass(frozen=True)
class GpuSearch:
    """The GPUs that were found, and what kept others from being found."""

    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""
    """Why it is not known whether there are GPUs: training on the CPU instead would be a surprise."""
    note: str = ""
    """What a user should know where no GPU is used."""


def computes_bf16(capability: tuple[int, int]) -> bool:
    """Return whether NVIDIA cards of a compute capability have units for bf16: from 8.0 (Ampere) on.

    torch says so of older ones too (V100 is 7.0, T4 7.5), and emulates it at a fraction of the speed of fp32.
    """
    return capability >= (8, 0)


def find_gpus(environment: Mapping[str, str] = os.environ) -> GpuSearch:
    """Return the GPUs that this process may use.

    Args:
        environment: CUDA_VISIBLE_DEVICES in it chooses among them, and PATH holds nvidia-smi.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else [word.strip() for word in visible.split(",")]
    if chosen is not None and chosen[0] in ("", "-1", "NoDevFiles", "none", "void"):
        return GpuSearch()
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        devices = glob.glob("/dev/nvidia[0-9]*")
        if devices:
            return GpuSearch(trouble=f"{devices[0]} is here, but no nvidia-smi is on the PATH")
        if os.path.exists("/dev/kfd"):
            return GpuSearch(note="the AMD GPU here is not used: amscale trains on NVIDIA's, and on CPUs")
        return GpuSearch()
    try:
        found = _query(program)
    except _NoAnswer as failure:
        return GpuSearch(trouble=str(failure))
    if not found:
        return GpuSearch(note="nvidia-smi finds no GPU")
    return GpuSearch(tuple(found if chosen is None else _choose(found, chosen)))


class _NoAnswer(Exception):
    """nvidia-smi did not say what there is; the message names the reason."""


def _query(program: str) -> list[Gpu]:
    status, output = _ask(program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
    if status and "not a valid field" in output:
        status, output = _ask(program, f"--query-gpu={_OLD_FIELDS}", "--format=csv,noheader,nounits")
    if "No devices were found" in output:
        return []
    if status:
        raise _NoAnswer(f"nvidia-smi ends with status {status} ({_shorten(output)})")
    gpus: list[Gpu] = []
    slices: dict[str, list[Gpu]] | None = None
    for line in filter(str.strip, output.splitlines()):
        words = [word.strip() for word in line.split(",")]
        if len(words) not in (3, 5) or not words[0].startswith("GPU-"):
            raise _NoAnswer(f"nvidia-smi gives an answer that is not known ({_shorten(line)})")
        gpu = Gpu(words[0], words[1], _memory(words[2], line), _bf16(words[3:4]))
        if words[4:] == ["Enabled"]:
            slices = _slices(program) if slices is None else slices
            gpus += [replace(one, bf16=gpu.bf16) for one in slices.get(gpu.uuid, [])]
        else:
            gpus.append(gpu)
    if not output.strip():
        raise _NoAnswer("nvidia-smi gives no answer")
    return gpus


def _memory(word: str, line: str) -> int | None:
    if word.isascii() and word.isdigit() and len(word) < _MOST_DIGITS and int(word):
        return int(word) * 2**20
    if word.strip("[]").lower() in ("n/a", "not supported"):
        return None
    raise _NoAnswer(f"nvidia-smi gives a memory that is not known ({_shorten(line)})")


def _bf16(words: list[str]) -> bool:
    """Return whether a card of this compute capability has bf16; one that does not tell is taken to have it."""
    found = re.fullmatch(r"([0-9]{1,3})\.([0-9]{1,3})", words[0]) if words else None
    return found is None or computes_bf16((int(found[1]), int(found[2])))


def _slices(program: str) -> dict[str, list[Gpu]]:
    """Return the MIG slices of each GPU: a process sees one of them, by its UUID."""
    _, output = _ask(program, "-L")
    found: dict[str, list[Gpu]] = {}
    card = ""
    for line in output.splitlines():
        if header := re.match(r"GPU \d+: .*\(UUID: (GPU-\S+)\)", line):
            card = header[1]
        elif part := _SLICE.match(line):
            found.setdefault(card, []).append(Gpu(part[3], f"MIG {part[1]}", int(part[2]) * 10**9, True, is_slice=True))
    return found


def _choose(gpus: list[Gpu], chosen: list[str]) -> list[Gpu]:
    """Return those that CUDA_VISIBLE_DEVICES names, up to the first that is not there, as CUDA does."""
    found = []
    for word in chosen:
        if word.isascii() and word.isdigit() and len(word) < _MOST_DIGITS:
            match = gpus[int(word) : int(word) + 1]
        else:
            match = [gpu for gpu in gpus if word.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(word)]
        if len(match) != 1:
            break
        found += match
    return found


def _ask(program: str, *arguments: str) -> tuple[int, str]:
    """Return exit status and output of nvidia-smi.

    Raises:
        _NoAnswer: it cannot be started, or has not answered in time.
    """
    try:
        process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        raise _NoAnswer(f"{program} cannot be started ({error.strerror})") from None
    try:
        output, _ = process.communicate(timeout=_ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        # Not waited for: what hangs in a driver cannot be killed.
        process.kill()
        raise _NoAnswer(f"nvidia-smi has not answered within {_ANSWER_SECONDS:.0f} s: its driver hangs") from None
    return process.returncode, output.decode("utf-8", "replace")


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:117]}..."
