"""Try every causal language model of transformers at small shapes: built and counted, or refused in words.

    python benchmarks/hub_survey.py                      # all of them, three shapes each: 4 minutes on 2 free cores
    python benchmarks/hub_survey.py gptj llama           # these
    python benchmarks/hub_survey.py --quick              # the first shape alone, without costs and gradients

For each architecture and shape: the shape is solved and counted on the meta device; the network is built and run on
a CPU; its parameters are as many as were counted; a later token changes no earlier logits; the loss and its gradients
are finite; costs and probes find what they need. Anything but success or an InputError is a fault: exit status 1.
"""

import argparse
import json
import math
import signal
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

SHAPES = ((2, 64, 256), (3, 96, 1000), (4, 128, 256))
"""(layers, width, vocabulary)."""
CONTEXT = 32


class TooLong(Exception):
    """An architecture took longer than the limit."""


def _expire(*_: Any) -> None:
    raise TooLong


def try_shape(architecture: str, layers: int, width: int, vocabulary: int, quick: bool) -> dict[str, Any]:
    """Return the counts of one shape after every check.

    Raises:
        InputError: refused.
        AssertionError: a check fails.
    """
    import torch
    from torch.nn import functional as F

    from amscale.models import (
        activation_bytes,
        attention_names,
        build,
        final_norm_name,
        flops_per_token,
        output_head_name,
        residual_names,
        solve,
    )  # fmt: skip
    from amscale.models.hub_settings import HubSettings

    settings = HubSettings(architecture=architecture, layers=layers, width=width)
    shape = solve(settings, vocabulary, CONTEXT)
    assert flops_per_token(shape) > 0
    assert quick or activation_bytes(shape, 2, 4, "cpu") > 0
    torch.manual_seed(0)
    model = build(shape)
    held = sum(p.numel() for p in model.parameters())
    assert shape.parameters.total == held, f"counted {shape.parameters.total}, the network has {held}"
    tokens_BT = torch.randint(vocabulary, (2, CONTEXT), generator=torch.Generator().manual_seed(1))
    model.eval()
    try:
        _check_forward(model, tokens_BT, vocabulary)
    except Exception:
        activation_bytes(shape, 2, 4, "cpu")  # a plan that refuses it comes first
        raise
    model.train()
    loss = F.cross_entropy(model(tokens_BT[:, :-1]).flatten(0, 1), tokens_BT[:, 1:].flatten())
    if not quick:
        loss.backward()
    assert math.isfinite(float(loss)), "the loss is not finite"
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    finite = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert finite, "a gradient is not finite"
    assert len(residual_names(model)) == layers
    return {
        "total": shape.parameters.total,
        "non_embedding": shape.parameters.under("non_embedding"),
        "heads": shape.heads,
        "feed_forward": shape.feed_forward,
        "loss": round(float(loss), 3),
        "without_gradient": len(missing),
        "missing": missing[:3],
        "attention_modules": len(attention_names(model)),
        "final_norm": final_norm_name(model),
        "head": output_head_name(model),
    }


def _check_forward(model: Any, tokens_BT: Any, vocabulary: int) -> None:
    import torch

    with torch.no_grad():
        logits_BTV = model(tokens_BT)
        assert logits_BTV.shape == (2, CONTEXT, vocabulary), f"logits {tuple(logits_BTV.shape)}"
        other_BT = tokens_BT.clone()
        other_BT[:, CONTEXT // 2 :] = (other_BT[:, CONTEXT // 2 :] + 1) % vocabulary
        moved = (model(other_BT) - logits_BTV)[:, : CONTEXT // 2].abs().max()
    assert moved < 1e-5, f"a later token moves earlier logits by {moved:.2g}"


def survey(architecture: str, limit: int, quick: bool) -> dict[str, Any]:
    """Return the outcome of each shape of one architecture: `built`, `refused` or `fault`, with what was said."""
    import warnings

    import torch
    import transformers

    from amscale.errors import InputError

    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _expire)
    outcome: dict[str, Any] = {"architecture": architecture, "shapes": []}
    for layers, width, vocabulary in SHAPES[:1] if quick else SHAPES:
        signal.alarm(limit)
        try:
            found = {"state": "built", **try_shape(architecture, layers, width, vocabulary, quick)}
        except InputError as error:
            found = {"state": "refused", "said": str(error)}
        except TooLong:
            found = {"state": "fault", "said": f"longer than {limit} s"}
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            found = {"state": "fault", "said": f"{said} ({last.filename}:{last.lineno})"}
        finally:
            signal.alarm(0)
        outcome["shapes"].append({"shape": f"{layers} x {width}", "vocabulary": vocabulary, **found})
    return outcome


def main() -> int:
    """Survey the architectures that are named, or all; print a line each and write all as JSON lines."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", help="model types; none: all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=int, default=60, help="seconds for a shape")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="hub_survey.jsonl")
    arguments = parser.parse_args()
    names = arguments.architectures or list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    faults = 0
    with (
        open(arguments.output, "w") as file,
        ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool,
    ):
        for done in as_completed([pool.submit(survey, name, arguments.limit, arguments.quick) for name in names]):
            outcome = done.result()
            file.write(json.dumps(outcome) + "\n")
            file.flush()
            states = [shape["state"] for shape in outcome["shapes"]]
            faults += "fault" in states
            said = next((shape["said"] for shape in outcome["shapes"] if "said" in shape), "")
            print(f"{outcome['architecture']:28} {' '.join(states):26} {said}", flush=True)
    print(f"{len(names)} architectures, {faults} with faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
