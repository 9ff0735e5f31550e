"""A family of another package, that of docs/models.md: messages, and what is said of one that will not do."""

import pytest
from helpers.packages import code_block, entry_point, install, run

HEADING = "## A family in your own package"
ENTRY = '[project.entry-points."amscale.families"]\nbroken = "broken_family:Broken"'


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    modules = {"parallel_family": code_block("models.md", "python", HEADING)}
    return install(tmp_path_factory.mktemp("site"), entry_point("models.md", HEADING), modules)


def test_messages_and_reference_know_the_family(packages):
    code = (
        "from amscale.config import load; from amscale.errors import InputError\n"
        "try: load('grammar.yaml', ['model={family: lstm}'])\n"
        "except InputError as error: print(error)\n"
        "from amscale.config.reference import reference; print('## model, parallel' in reference())\n"
    )
    done = run(packages, "-c", code)
    assert done.stdout.splitlines() == [
        "model.family='lstm'; allowed are 'vanilla', 'gpt2', 'openelm', 'hub', 'custom', 'script', 'parallel'",
        "True",
    ], done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("Broken = 3", "give a subclass of amscale.models.Family"),
        ("from amscale.models import Family\nclass Broken(Family): pass", "abstract method"),
        (
            "from amscale.models import Family, FamilySettings\n"
            "class Broken(Family):\n    settings = FamilySettings\n    def build(self, shape): pass",
            'declare `family: Literal["broken"] = "broken"`',
        ),
    ],
)
def test_a_package_that_is_no_family_is_one_line(tmp_path, code, words):
    """It is noticed by who uses it, and by nobody else."""
    packages = install(tmp_path, ENTRY, {"broken_family": code})
    assert run(packages, "-m", "amscale.plan", "grammar.yaml", f"storage={tmp_path}").returncode == 0
    done = run(packages, "-m", "amscale.plan", "grammar.yaml", f"storage={tmp_path}", "model.family=broken")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "entry point 'broken' of amscale.families" in done.stderr
