"""docs/results.md and what README.md says of it: made from the tables in docs/data, and from nothing else."""

import hashlib
import importlib
import re
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from amscale import Sweep
from amscale.scaling.fit import fit_so_far
from amscale.trials.archive import unpacked

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data"


@pytest.fixture(scope="module", autouse=True)
def findings():
    """The folder of the scripts can be imported from."""
    sys.path.insert(0, str(ROOT / "findings"))
    yield
    sys.path.remove(str(ROOT / "findings"))


@pytest.fixture(scope="module")
def known(findings):
    return importlib.import_module("fits").read_estimates()


@pytest.fixture(scope="module")
def page(findings):
    return importlib.import_module("page")


def test_the_page_and_the_readme_are_what_the_estimates_make(known, page):
    assert page.render_page(known) == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.BEGIN in readme
    assert page.with_findings(readme, known) == readme


def test_estimates_are_those_of_the_archives_on_disk_which_are_small(known):
    catalogue = importlib.import_module("catalogue")
    archives = {path.stem: path for path in DATA.glob("*.parquet")}
    assert set(known) == set(archives)
    for name, path in archives.items():
        assert known[name]["of"]["archive"] == hashlib.sha256(path.read_bytes()).hexdigest(), name
        assert path.stat().st_size < 1_100_000, name  # 640 runs with their curves are the most
        assert known[name]["facts"]["finished"] > 0
        assert (ROOT / "configs" / "findings" / f"{catalogue.FINDINGS[name].configuration}.yaml").is_file()
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 6_500_000


@pytest.mark.parametrize("name", [n for n in ("capacity", "floor_grammar") if (DATA / f"{n}.parquet").is_file()])
def test_archives_give_the_estimates_again(known, name):
    """Those that need no law, which take a second."""
    stored = {item["id"]: item for item in known[name]["fits"]["all"]["estimates"]}
    with unpacked(DATA / f"{name}.parquet") as folder:
        found = fit_so_far(folder, "non_embedding", 0.2, 0.04, (0.5, 1.0, 1.35, 2.0, 4.0))
    ids = [item.id for item in found if item.value is not None]
    assert len(ids) >= 4
    for id in ids:
        assert found[id].value == pytest.approx(stored[id]["value"], rel=1e-6)
        assert found[id].interval == pytest.approx(stored[id]["interval"], rel=1e-6)


@pytest.mark.slow
def test_a_whole_fit_gives_the_estimates_again(known):
    stored = known["rates_questions"]["fits"]["all"]["estimates"]
    found = Sweep(DATA / "rates_questions.parquet").fit()
    assert found.ids == [item["id"] for item in stored]
    for item in stored:
        assert (found[item["id"]].value is None) == (item["value"] is None)
        if item["value"] is not None:
            assert found[item["id"]].value == pytest.approx(item["value"], rel=1e-3)


def test_no_sentence_contradicts_its_interval(page):
    """What a slope and a test say in words follows from the numbers, whatever they are."""
    capacities, tables = sys.modules["capacities"], sys.modules["tables"]

    def known(slope, interval):
        shared = {"refusal": None, "hypotheses": [], "group": "", "details": {}}
        items = [
            {"id": "capacity_bits_per_parameter", "value": 2.0, "interval": [1.5, 2.5], **shared},
            {"id": "capacity_slope", "value": slope, "interval": interval, **shared},
        ]
        return {"capacity": {"facts": {"N": [456, 47256], "seeds": [0, 1]}, "fits": {"all": {"estimates": items}}}}

    assert capacities.capacity_sentence(known(1.0, [0.9, 1.1])).endswith(
        "N must grow as D^1 (0.909 to 1.11), which rejects ½, 1.35, 2 and 4, and not 1."
    )
    assert capacities.capacity_sentence(known(0.5, [0.45, 0.6])).endswith("which rejects ½, 1, 1.35 and 4, and not 2.")
    assert "which" not in capacities.capacity_sentence(known(0.5, [-0.1, 1.1]))
    at_best = {"settings": ["train.batch_tokens=512, train.learning_rate=0.005"]}
    assert capacities._rate(at_best, [0.005, 0.02]) == " (0.005, the least tried)"
    assert capacities._rate(at_best, [0.001, 0.02]) == " (0.005)"
    assert capacities._rate({"settings": []}, []) == ""
    assert tables.decided([], [0.5, 1.0]) == "rejects none of ½ and 1"
    assert tables.NOT_RUN in page.render_page({})


def test_answers_follow_the_numbers_whatever_they_are(page):
    answers, energies, thresholds = (sys.modules[name] for name in ("answers", "energies", "thresholds"))

    def star(N, lower, upper):
        return {"N": N, "lower": lower, "upper": upper, "flags": []}

    grows = [star(1e3, 1e4, 2e4), star(1e4, 2e4, 4e4), star(1e5, 3e4, None)]
    assert thresholds._pairs(grows) == (2, 0, 3)  # the last two overlap
    assert thresholds._pairs([star(1e3, 3e4, 6e4), star(1e4, 1e4, 2e4)]) == (0, 1, 1)

    assert answers._sides([(0.5, 0.5), (1.0, 0.995), (2.0, 2.0)]) == {
        "below 1": [(0.5, 0.5)],
        "too near to 1 to tell the two apart": [(1.0, 0.995)],
        "above 1": [(2.0, 2.0)],
    }

    def probes(*shares):
        rows = [{"layers": 2, "width": 8, "seed": 0, "step": step, "E": share} for step, share in shares]
        return {"facts": {"energies": rows}}

    known = {"energies": probes((10, 0.9), (90, 0.6)), "energies_untrained": probes((1, 0.5))}
    assert energies.share_changes(known, ["energies"], "E") == (1, 0, 1)
    assert energies.share_changes(known, ["energies"], "E", untrained=True) == (0, 1, 1)

    def part(label, value, interval, rejected):
        tests = [{"value": k, "rejected": k in rejected} for k in (1.0, 2.0)]
        return {label: {"estimates": [{"id": "k_kaplan", "value": value, "interval": interval, "hypotheses": tests}]}}

    fits = part(answers.PARTS[0], None, None, ()) | part(answers.PARTS[3], 2.5, [1.3, 6.0], (1.0,))
    text = answers.part_answer({"rectangle_english": {"fits": fits, "also": {}}})
    assert "all cells not determined" in text
    assert "D from 240k 2.5 (1.3 to 6), which rejects 1, and not 2" in text


def test_no_archive_tells_where_it_was_made():
    for file in sorted(DATA.glob("*.parquet")):
        table = pyarrow.parquet.read_table(file)
        texts = [str(value) for value in (table.schema.metadata or {}).values()]
        texts += [str(value) for name in table.column_names for value in table.column(name).to_pylist()]
        places = {place for text in texts for place in re.findall(r'"storage": ?"(/[^"]*)"', text)}
        assert not places, file.name
