"""A rank of a mixture of experts is killed in mid-run: the same command goes on, bit for bit."""

import json
import re
import subprocess

import numpy as np
from end_to_end.commands import command, environment, processes_naming, wait_until

MIXTRAL = """
name: experts
model: {family: hub, architecture: mixtral, layers: 2, width: 16, options: {num_local_experts: 4, sliding_window: 8}}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 4k}
train: {steps: 12, batch_tokens: 350, learning_rate: 1e-2, validate_every: 6, validation_tokens: 700, z_loss: 1e-4}
probes: {every: 6, sequences: 16}
launch: {processes_per_machine: 2, precision: fp32, zero_stage: 2, checkpoint_every: 3}
"""


def launch_line(configuration, storage) -> str:
    planned = command("plan", str(configuration), f"storage={storage}", "--commands")
    assert planned.returncode == 0, planned.stderr
    (line,) = re.findall(r"^env .*$", planned.stdout, re.MULTILINE)
    return line


def records(trial) -> list[tuple]:
    """Losses and measurements of every step, bit for bit."""
    lines = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"], line.get("loss"), line.get("values")) for line in lines]


def test_a_killed_rank_of_a_mixture_of_experts(tmp_path):
    configuration = tmp_path / "experts.yaml"
    configuration.write_text(MIXTRAL)
    line = launch_line(configuration, tmp_path / "calm")
    subprocess.run(line, shell=True, capture_output=True, timeout=180, env=environment(), check=True)
    (calm,) = tmp_path.glob("calm/experts/trials/*")

    line = launch_line(configuration, tmp_path / "killed")
    killed = tmp_path / "killed" / "experts" / "trials" / calm.name
    launcher = subprocess.Popen(
        line, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    wait_until(lambda: any(killed.glob("checkpoints/step_*[0-9]")), 120, "a checkpoint")
    ranks = [
        p for p in processes_naming(tmp_path / "killed") if p.info["cmdline"][1:4] == ["-u", "-m", "amscale.train"]
    ]
    assert len(ranks) == 2
    ranks[1].kill()
    assert launcher.wait(timeout=120) != 0
    assert not (killed / "result.json").exists()
    subprocess.run(line, shell=True, capture_output=True, timeout=180, env=environment(), check=True)

    assert records(killed) == records(calm)
    result = json.loads((killed / "result.json").read_text())
    assert (result["engine"]["world_size"], result["engine"]["zero_stage"]) == (2, 2)
    # Two of the four experts serve a token; a fresh model guesses evenly among the words.
    assert result["parameters"]["active_feed_forward"] < result["parameters"]["feed_forward"]
    assert abs(records(killed)[0][2] - np.log(result["shape"]["vocabulary"])) < 0.1
