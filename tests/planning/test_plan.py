"""Plans of corpora that are not tokenised yet."""

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.planning.plan import plan_sweep


def test_a_part_and_the_whole_of_a_corpus_in_one_grid(tmp_path):
    """A D that is given needs no tokens, all that there are does: the plan makes them for that cell alone."""
    overrides = ["model.size=25k", "grid.data.size=[8k, null]", "data.documents=1k", "data.validation=100"]
    experiment = config.load("quick.yaml", [*overrides, f"storage={tmp_path}"])
    part, whole = plan_sweep(experiment, tmp_path, this_machine(), build=False).trials
    assert (part.tokens, part.store) == (8000, None)
    assert whole.store is not None
    assert whole.tokens == whole.store.training_tokens > 8000
