"""A network of the user's own: the example of docs/models.md through the commands, and what is said of networks that
will not do."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amscale.errors import InputError
from amscale.models import attention_names, build, final_norm_name, output_head_name, residual_names, solve
from amscale.models.families.custom import CustomSettings

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("## Your own model")[2]
CODE, YAML = (re.search(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL).group(1) for kind in ("python", "yaml"))


def written(folder, code, name="model_under_test.py"):
    """Write a module and return the settings that name its function `build` by the file."""
    path = folder / name
    path.write_text(code, encoding="utf-8")
    return f"{path}:build"


def shape_of(builder, **settings):
    return solve(CustomSettings(builder=builder, layers=2, width=16, heads=2, **settings), 50, 24)


@pytest.mark.slow
def test_the_example_of_the_docs_is_planned_and_trained(tmp_path):
    (tmp_path / "my_model.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(YAML, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "amscale.sweep",
        "own.yaml",
        "grid.model.size=[12k]",
        "probes.every=10",
        "train.learning_rate=1e-2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # the folder of the command is not on it
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("results/*/trials/custom-*/result.json")
    result = json.loads(path.read_text())
    shape, counts = result["shape"], result["parameters"]
    d, layers, hidden = shape["width"], shape["layers"], 4 * shape["width"]
    assert shape["options"]["builder"] == "my_model:build"
    assert json.loads(shape["options"]["given"]) == {"dropout": 0.1}
    assert counts["attention"] == layers * (4 * d * d + 4 * d)
    assert counts["feed_forward"] == layers * (2 * d * hidden + hidden + d)
    assert counts["output_head"] == (d + 1) * shape["vocabulary"]
    assert abs((counts["attention"] + counts["feed_forward"]) / 12_000 - 1) <= 0.03
    assert result["losses"]["validation_least"] < 4.1  # from ln 68
    probes = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
    names = {name for record in probes if record["kind"] == "probe" for name in record["values"]}
    assert any(name.startswith("energy/layer_") for name in names)


def test_an_edited_module_is_another_model_in_the_same_process(tmp_path, monkeypatch):
    """A notebook edits a file and goes on; Python by itself would keep what it has imported."""
    sizes = tmp_path / "sizes_under_test.py"
    sizes.write_text("BIAS = False\n")
    head = "nn.Linear(shape.width, shape.vocabulary"
    code = "import sizes_under_test\n" + CODE.replace(f"{head})", f"{head}, sizes_under_test.BIAS)")
    builder = written(tmp_path, code, "edited_under_test.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "edited_under_test", importlib.import_module("edited_under_test"))
    before = shape_of(builder)
    assert build(before).model.unembed.bias is None
    sizes.write_text("BIAS = bool(1)\n")
    after = shape_of(builder)
    assert build(after).model.unembed.bias is not None
    assert after.options.source != before.options.source
    written(tmp_path, code + "\nbuild = None\n", "edited_under_test.py")
    with pytest.raises(InputError, match="has no function build"):
        shape_of(builder)


def test_parts_are_found_or_named(tmp_path):
    builder = written(tmp_path, CODE)
    torch.manual_seed(0)
    network = build(shape_of(builder))
    assert residual_names(network) == ["model.blocks.0", "model.blocks.1"]
    assert attention_names(network) == ["model.blocks.0.self_attn", "model.blocks.1.self_attn"]
    assert (final_norm_name(network), output_head_name(network)) == ("model.norm", "model.unembed")
    named = build(shape_of(builder, modules={"final_norm": "none", "attention": "self_attn.out_proj"}))
    assert final_norm_name(named) is None
    assert attention_names(named)[0] == "model.blocks.0.self_attn.out_proj"
    with pytest.raises(InputError, match=r"model\.modules\.head='lm_head'.*blocks"):
        shape_of(builder, modules={"head": "lm_head"})


def test_code_identifies_a_network_and_its_folder_does_not(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    codes = [CODE, CODE, CODE.replace("norm_first=True", "norm_first=False")]
    options = []
    for folder, code in zip(folders, codes, strict=True):
        folder.mkdir()
        (folder / "blocks.py").write_text(code, encoding="utf-8")
        options.append(shape_of(written(folder, "from blocks import build\n")).options)
    assert options[0] == options[1]
    assert options[0].source != options[2].source


SEES_LATER = CODE.replace("src_mask=mask, is_causal=True", "")
NO_LOGITS = CODE.replace("return self.unembed(self.norm(x))", "return self.norm(x)")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (SEES_LATER, "not causal: a later token changes the logits"),
        (NO_LOGITS, r"returns \(2, \d+, 16\) for tokens \(2, \d+\); it must return logits \(2, \d+, 50\)"),
        ("def build(shape): return [1]", "returns list; return a torch.nn.Module"),
        ("def build(shape): raise OSError('no weights')", r"fails for 2 x 16, 2 heads: OSError: no weights"),
        ("def construct(shape): pass", "has no function build"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def build(:", "cannot be read in .*SyntaxError"),
        (
            "from torch import nn\ndef build(shape): return nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 50))",
            "no ModuleList; name the module",
        ),
    ],
)
def test_networks_that_will_not_do(code, words, tmp_path):
    name = f"model_{abs(hash(code)) % 10**8}.py"  # a module is imported once
    with pytest.raises(InputError, match=words):
        shape_of(written(tmp_path, code, name))


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        ("models.py", "names no function; give module:function"),
        ("/no/such/file.py:build", "there is no file /no/such/file.py"),
        ("no_such_module.models:build", "there is no module no_such_module.models in"),
    ],
)
def test_builders_that_are_not_there(builder, words):
    with pytest.raises((InputError, ValueError), match=words):
        CustomSettings(builder=builder, size=1000)
