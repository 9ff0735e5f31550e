"""Cells that were run at several settings: what is chosen by validation loss, and what all runs have a say in."""

import json
import math

import numpy as np
import pytest

from amscale.fit import fit as fit_command
from amscale.reporting.capacity_table import count_rows, details_of, size_rows
from amscale.reporting.predictions import print_by
from amscale.reporting.terminal import make_console
from amscale.scaling.capacity import capacities, capacity_estimates
from amscale.scaling.fit import fit_sweep
from amscale.scaling.reading import read_sweep

ENTROPY = math.log(32)


def settle(path, **settings):
    """Give a trial settings, as `train.learning_rate=0.01`, and a vocabulary of 32 tokens and an end."""
    result = json.loads((path / "result.json").read_text())
    tree = result.setdefault("settings", {"seed": result["seed"]})
    for key, value in settings.items():
        section, _, name = key.replace("__", ".").partition(".")
        tree.setdefault(section, {})[name] = value
    result["shape"]["vocabulary"] = 33
    (path / "result.json").write_text(json.dumps(result))


def random_tokens(folder, write_trial, seeds=3):
    """Write runs on random tokens: N parameters hold 2 N bits at a rate of 0.01, half of them at 0.001.

    The lower rate over-fits less, and so has the lower validation loss.
    """
    random = np.random.default_rng(0)
    for i, N in enumerate((1e3, 2e3, 4e3)):
        for j, D in enumerate(2 * N * math.log(2) / ENTROPY * np.array([0.6, 1.2, 2.4])):
            for rate, share, validation in ((1e-2, 1.0, 5.0), (1e-3, 0.5, 4.0)):
                for seed in range(seeds):
                    bits = share * 2 * N * (1, 0.99, 0.9)[j] * math.exp(0.01 * random.normal())
                    bits = min(bits, 0.98 * D * ENTROPY / math.log(2))
                    loss = ENTROPY - bits * math.log(2) / D
                    train = [ENTROPY] * 50 + [loss + 0.02] * 200 + [loss] * 50
                    name = f"{i}{j}{rate}{seed}"
                    given = {"seed": seed, "entropy": ENTROPY, "every": 100, "losses": {"train_evaluated": loss}}
                    path = write_trial(folder, name, N, float(D), [ENTROPY + 1, validation, validation], train, **given)
                    settle(path, train__learning_rate=rate)
    (folder / "sweep.yaml").write_text("tune:\n  train.learning_rate: [0.001, 0.01]\n")


def test_memorised_bits_and_the_least_training_loss_are_those_of_all_settings(tmp_path, write_trial):
    random_tokens(tmp_path, write_trial)
    fit = fit_sweep(tmp_path, resamples=100)
    assert [point.settings["train.learning_rate"] for point in fit.table.points] == pytest.approx([1e-3] * 9)
    bits = fit["capacity_bits_per_parameter"]
    assert bits.value == pytest.approx(2, rel=0.02)
    assert fit["capacity_slope"].value == pytest.approx(1, abs=0.05)
    assert any("train.learning_rate=0.01 in 9 of 9 cells" in remark for remark in bits.remarks)
    assert fit["floor_train_settled"].used == 54
    verdict = str(fit.verdict())
    assert "1 is no floor of the training loss" in verdict
    assert "Training loss passes below 1 in 27 of 54 runs" in verdict
    assert any("learn the least by heart" in warning for warning in fit.table.warnings)
    assert "nothing in it can be foretold" in fit["k_collapse"].reason
    assert all(fit[id].value is None for id in fit.ids if "law" in fit[id].details)
    assert "count with those of their least validation loss" in " ".join(fit["k_dstar"].remarks)


def test_bits_stand_by_every_count_with_whether_the_loss_came_to_rest(tmp_path, write_trial):
    random_tokens(tmp_path, write_trial, seeds=2)
    details = details_of(capacity_estimates(read_sweep(tmp_path)))
    one = size_rows(details)[0]
    # Made runs have a head of N/4 parameters, and 1.25 N + 12 in all.
    bits = max(capacities(read_sweep(tmp_path))[0].memorised)
    assert one[:3] == ["1k", "480", "2"]
    assert [float(text) for text in one[4:7]] == pytest.approx([bits / 1e3, bits / 1250, bits / 1262], rel=5e-3)
    assert float(one[7]) == pytest.approx(0.02 * 480 / (bits * math.log(2)), rel=0.02)
    counts = {row[0]: row for row in count_rows(details)}
    assert float(counts["with_head"][1]) == pytest.approx(float(counts["non_embedding"][1]) / 1.25, rel=1e-3)
    assert float(counts["total"][3]) > float(counts["non_embedding"][3])  # its 12 weigh more in small models


def test_one_size_of_data_says_that_it_cannot_tell_where_the_most_bits_are(tmp_path, write_trial):
    for i, N in enumerate((1e5, 1e6, 1e7)):
        write_trial(tmp_path, str(i), N, 1e4 * N**0.5, [4.0], [0.1] * 9, entropy=3.0, losses={"train_evaluated": 0.1})
    slope = capacity_estimates(read_sweep(tmp_path))[1]
    assert "one D, and the greatest M needs a smaller and a larger one" in slope.left_out[0]


@pytest.mark.slow
def test_weight_decay_gives_each_its_threshold_and_its_exponent_in_one_command(tmp_path, write_trial, capsys):
    """k = 2 at decay 0 and 1 at decay 0.1, where over-fitting begins at fewer tokens."""
    for decay, k, scale in ((0.0, 2.0, 1.0), (0.1, 1.0, 0.5)):
        for i, N in enumerate(np.geomspace(1e4, 1.6e5, 5)):
            crossing = scale * 1e5 * (N / 1e4) ** (1 / k)
            for j, D in enumerate(np.geomspace(2e4, 4e6, 16)):
                gap = 0.2 * crossing / D
                floor = 1.2 + 0.5 * (N / 1e4) ** -0.3 + 0.5 * (D / 1e5) ** -0.4
                path = write_trial(
                    tmp_path, f"{decay}{i}{j}", float(N), float(D), [floor + 0.1, floor], [floor - gap] * 40
                )
                settle(path, train__weight_decay=decay)
    fit_command(str(tmp_path), by="train.weight_decay", resamples=100, json=True)
    document = json.loads(capsys.readouterr().out)
    rows = {row["kind"]: row for row in document["compared"] if row["id"] == "k_dstar"}
    assert rows["0.0"]["interval"][0] < 2 < rows["0.0"]["interval"][1]
    assert rows["0.1"]["interval"][0] < 1 < rows["0.1"]["interval"][1]
    first = {kind: row["dstar"][0] for kind, row in rows.items()}
    assert first["0.0"]["low"] < 1e5 <= first["0.0"]["high"]
    assert first["0.1"]["low"] < 5e4 <= first["0.1"]["high"]
    print_by(document, make_console())
    text = capsys.readouterr().out
    assert "k_dstar: k at D*(N), over-fitting threshold" in text
    assert "0.1: D* " in text
