"""Private and undocumented interfaces of other packages exist and behave as they are used: docs/private_apis.md."""

import ast
import functools
import inspect
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import torch
from helpers.commands import is_loopback
from torch import nn

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "private_apis.md").read_text()
SOURCES = sorted((ROOT / "amscale").rglob("*.py"))
SWITCH = re.compile(r"(?:RAY|TUNE|TORCH|DS|ACCELERATE|OMP|MKL|TOKENIZERS|CUDA|NCCL|GLOO|TP|LOCAL|HF|TF)_\w+")
DOCUMENTED = {"_replace", "_exit", "_fields", "_asdict"}
"""Of the standard library, which begin with an underscore for want of another mark."""


# --- the page


@functools.cache
def trees() -> list[ast.Module]:
    """Return the syntax trees of the package."""
    return [ast.parse(path.read_text()) for path in SOURCES]


def test_every_private_attribute_in_use_is_on_the_page():
    own, used = set(DOCUMENTED), set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Attribute) and re.match("_[a-z]|__compatible", node.attr):
                used.add(node.attr)
    assert "_get_file_writer" in used - own
    assert not [name for name in used - own if f"{name}`" not in PAGE and f"{name}[" not in PAGE]
    source = " ".join(path.read_text() for path in SOURCES)
    assert not [name for name in re.findall(r"[`.](_[a-z]\w+)`", PAGE) if name not in source]


def test_every_environment_switch_in_use_is_on_the_page():
    words = {
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    switches = {word for word in words if SWITCH.fullmatch(word)}
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" in switches
    assert not [switch for switch in switches if f"`{switch}`" not in PAGE]


def test_tests_that_the_page_names_exist():
    here = Path(__file__).read_text()
    assert not [name for name in re.findall(r"`(test_\w+)`", PAGE) if f"def {name}(" not in here]
    files = set(re.findall(r"`(\w+/test_\w+\.py)`", PAGE)) - {"tests/test_private_apis.py"}
    assert len(files) > 5
    assert not [file for file in files if not (ROOT / "tests" / file).is_file()]


# --- torch


class Anything:
    """A class that torch does not know."""


def test_torch_refuses_other_classes_where_the_switch_is_set(tmp_path, monkeypatch):
    torch.save(Anything(), tmp_path / "file.pt")
    assert isinstance(torch.load(tmp_path / "file.pt", weights_only=False), Anything)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(Exception, match="Weights only load failed"):
        torch.load(tmp_path / "file.pt", weights_only=False)
    with torch.serialization.safe_globals([Anything]):
        assert isinstance(torch.load(tmp_path / "file.pt", weights_only=False), Anything)


def test_the_rendezvous_listens_on_one_address():
    from torch.distributed.elastic.rendezvous import RendezvousParameters, rendezvous_handler_registry
    from torch.distributed.elastic.rendezvous.registry import _register_default_handlers

    _register_default_handlers()
    parameters = RendezvousParameters("amscale", "", uuid4().hex, 1, 1, rank=0, address="127.0.0.1", port=0)
    before = listening()
    handler = rendezvous_handler_registry.create_handler(parameters)
    met = handler.next_rendezvous()
    met.store.set("key", b"value")
    assert met.store.get("key") == b"value"
    assert (met.rank, met.world_size) == (0, 1)
    (address,) = listening() - before
    assert is_loopback(address[0])
    assert address[1] == met.bootstrap_store_info.master_port


def listening() -> set[tuple[str, int]]:
    """Return the addresses and ports on which this process listens."""
    entries = psutil.Process().net_connections("tcp")
    return {(entry.laddr.ip, entry.laddr.port) for entry in entries if entry.status == psutil.CONN_LISTEN}


def test_a_store_takes_a_socket_that_listens():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    store = torch.distributed.TCPStore(
        "127.0.0.1", port, 1, is_master=True, multi_tenant=True, master_listen_fd=listener.detach()
    )
    assert store.port == port


def test_hyper_parameters_go_to_the_run_itself(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    board = SummaryWriter(str(tmp_path))
    for summary in hparams({"width": 16}, {"loss": 1.5}):
        board._get_file_writer().add_summary(summary)
    board.close()
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == []
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_compiled_modules_are_recognised():
    plain, in_place = nn.Linear(2, 2), nn.Linear(2, 2)
    in_place.compile()
    assert plain._compiled_call_impl is None
    assert in_place._compiled_call_impl is not None
    assert torch.compile(plain)._orig_mod is plain


def test_storages_have_identities():
    tensor = torch.zeros(4)
    assert tensor[2:].untyped_storage()._cdata == tensor.untyped_storage()._cdata
    assert tensor.clone().untyped_storage()._cdata != tensor.untyped_storage()._cdata


def test_order_of_the_arguments_of_attention():
    documented = nn.functional.scaled_dot_product_attention.__doc__
    order = "query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False"
    assert order in " ".join(documented.split())


# --- Ray


def test_switches_of_ray_exist():
    import ray.air.constants
    import ray.tune.constants
    from ray._common.usage import usage_constants
    from ray._private import ray_constants
    from ray._private.accelerators import accelerator
    from ray.tune import tune
    from ray.tune.experimental import output

    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    assert accelerator.RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO_ENV_VAR == "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    assert usage_constants.USAGE_STATS_ENABLED_ENV_VAR == "RAY_USAGE_STATS_ENABLED"
    assert "RAY_AIR_NEW_OUTPUT" in inspect.getsource(output)
    assert {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
        "TUNE_DISABLE_SIGINT_HANDLER",
        "TUNE_GLOBAL_CHECKPOINT_S",
        "TUNE_MAX_PENDING_TRIALS_PG",
    } <= set(ray.tune.constants.TUNE_ENV_VARS)
    assert "signal.signal(signal.SIGUSR1" in inspect.getsource(tune)


def test_ray_listens_on_loopback_where_the_switch_is_off(monkeypatch):
    """Ray reads the switch when it is imported, and the constant when it starts."""
    from ray._private import ray_constants, services

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    assert services.get_node_ip_address() == "127.0.0.1"
    code = "from ray._private import ray_constants; print(ray_constants.ENABLE_RAY_CLUSTER)"
    environment = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_switches_of_rays_nodes_exist():
    """Of Ray's own programs, which pass over a name that they do not know."""
    import ray

    programs = [Path(ray.__file__).parent / "core/src/ray" / name for name in ("gcs/gcs_server", "raylet/raylet")]
    code = b"".join(program.read_bytes() for program in programs)
    names = re.findall(r"`RAY_([a-z]\w+)`", PAGE)
    assert len(names) == 7
    assert not [name for name in names if name.encode() not in code]
    scripts = (Path(ray.__file__).parent / "_private").rglob("*.py")
    assert any("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S" in path.read_text() for path in scripts)


def test_a_trial_of_tune_has_what_is_read():
    from ray import cloudpickle
    from ray.tune.experiment import Trial
    from ray.tune.search import Searcher

    assert isinstance(Trial.pickled_error_file, property)
    assert isinstance(Trial.last_result, property)
    assert isinstance(Searcher.FINISHED, str)
    assert cloudpickle.loads(cloudpickle.dumps(ValueError("words"))).args == ("words",)


def test_the_head_has_an_address():
    from ray.runtime_context import RuntimeContext

    assert isinstance(RuntimeContext.gcs_address, property)


def test_a_local_cluster_takes_a_token():
    import ray
    from ray._private import worker
    from ray._private.authentication import authentication_token_setup as setup

    assert setup.AUTH_MODE_ENV_VAR == "RAY_AUTH_MODE"
    assert "enable_token_auth_by_default()" in inspect.getsource(worker.init)
    assert "Config.initialize" in inspect.getsource(setup._enable_token_auth)
    assert b"RAY_AUTH_TOKEN" in Path(ray._raylet.__file__).read_bytes()


# --- Accelerate and DeepSpeed


def test_the_launcher_takes_the_options_that_are_given():
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    given = ["--rdzv_backend", "amscale", "--rdzv_conf", "rank=0", "--log_dir", "/dev/null"]
    options = launch_command_parser().parse_args(["--use_deepspeed", *given, "script"])
    assert (options.rdzv_backend, options.rdzv_conf, options.log_dir) == ("amscale", "rank=0", "/dev/null")
    torch_options = {action.dest for action in get_args_parser()._actions}
    assert {"rdzv_backend", "rdzv_conf", "log_dir"} <= torch_options


def test_deepspeed_asks_before_it_loads_its_extension():
    import deepspeed.comm
    import deepspeed.ops
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    assert ShareMemCommBuilder.NAME == "deepspeed_shm_comm"
    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    module = sys.modules["deepspeed.comm.torch"]  # `deepspeed.comm.torch` is torch itself
    assert "deepspeed.ops.__compatible_ops__.get(builder.NAME, False)" in inspect.getsource(module)


def test_classes_of_deepspeeds_checkpoints_are_where_they_were():
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    assert LossScaler(scale=2.0).loss_scale == 2.0
    assert [int(stage) for stage in ZeroStageEnum] == [0, 1, 2, 3]
    assert fragment_address(numel=3, start=1).numel == 3


def test_the_engine_tells_what_it_is():
    from deepspeed import DeepSpeedEngine

    for name in (
        "zero_optimization_stage",
        "bfloat16_enabled",
        "fp16_enabled",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "get_data_types",
        "gradient_clipping",
        "zero_cpu_offload",
        "zero_offload_param",
        "was_step_applied",
    ):
        assert inspect.signature(getattr(DeepSpeedEngine, name)).parameters.keys() == {"self"}


# --- transformers


def test_transformers_knows_causal_language_models():
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )

    for name in ("gpt2", "llama", "mixtral", "qwen3"):
        configuration = CONFIG_MAPPING[name]
        assert MODEL_FOR_CAUSAL_LM_MAPPING[configuration].__name__ == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name]
        assert isinstance(configuration.attribute_map, dict)
        assert isinstance(MODEL_FOR_CAUSAL_LM_MAPPING[configuration]._supports_sdpa, bool)
    assert CONFIG_MAPPING["gpt2"].attribute_map["hidden_size"] == "n_embd"
