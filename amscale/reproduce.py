"""Print how a finished trial is trained again: versions, configuration, command.

examples:
  python -m amscale.reproduce results/quick/trials/LABEL
  python -m amscale.reproduce results/quick/trials/LABEL --output again      writes again/trial.yaml

settings that matter: none; they are those of the trial, its placement included.
"""


def reproduce(trial: str, output: str | None = None, json: bool = False) -> None:
    """Print the versions of then, what differs here, and the commands that train the trial again.

    On the same versions and processor the losses are the same bit for bit (CPU, fp32).

    Args:
        trial: the trial's folder, or <URI of its sweep>/trials/<label>.
        output: the folder that gets trial.yaml; by default it is printed with the commands.
        json: print one JSON document on standard output instead.
    """
    from pathlib import Path

    from amscale.cli import print_json
    from amscale.reporting.recipe import recipe_of
    from amscale.trials.storage_errors import output_folder, storage_errors
    from amscale.trials.sweep_store import open_trial

    with open_trial(trial) as store:
        recipe = recipe_of(store, trial)
    folder = Path("." if output is None else output)
    if output is not None:
        setting, advice = f"output={output!r}", "give another folder by --output"
        with storage_errors(folder), output_folder(folder, setting, ["trial.yaml"], [], advice):
            (folder / "trial.yaml").write_text(recipe.configuration, encoding="utf-8")
    if json:
        print_json(recipe.to_document(folder / "trial.yaml"))
    else:
        print(recipe.describe(folder / "trial.yaml", written=output is not None))


if __name__ == "__main__":
    from amscale.cli import run

    run(reproduce)
