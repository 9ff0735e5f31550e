"""Whether torch.compile can make code on this machine: it needs a C++ compiler, and on GPUs the package triton."""

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Literal


def compile_obstacle(device: Literal["cpu", "cuda"]) -> str:
    """Return why torch.compile cannot make code for a device on this machine; empty where it can."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None or shutil.which(compiler) is None:
        return "there is no C++ compiler here (g++)"
    if device == "cpu" and not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are not installed here (python3-dev)"
    if device == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed here"
    return ""


STAGE_3 = "ZeRO-3 gathers parameters by hooks, which compiled code passes over"
"""Why nothing is compiled under it."""
