"""Remove the checkpoints of a sweep, and never a result.

examples:
  python -m amscale.clean results/quick                shows what would be removed, and how much
  python -m amscale.clean results/quick --yes          removes it

settings that matter: none. Finished trials have no checkpoints; those of the others are what they continue from.
"""


def clean(sweep: str = "results/quick", yes: bool = False, json: bool = False) -> None:
    """Show the checkpoints of every trial of a sweep, and with --yes remove them; nobody may run the sweep meanwhile.

    A trial without a result begins at its first step again afterwards.

    Args:
        sweep: the sweep's folder or URI, <storage>/<name>.
        yes: remove them.
        json: print one JSON document on standard output instead.
    """
    from dataclasses import asdict

    from amscale.cli import print_json
    from amscale.trials.cleaning import clean_sweep

    found = clean_sweep(sweep, remove=yes)
    total = sum(each.bytes for each in found)
    if json:
        print_json({"trials": [asdict(each) for each in found], "bytes": total, "removed": yes})
        return
    for each in found:
        lost = "" if each.done else f", and the {each.steps:,} steps of a trial without a result"
        print(f"{each.label}: {each.checkpoints} checkpoint(s), {each.bytes / 1e6:,.1f} MB{lost}")
    if not found:
        print(f"{sweep}: no checkpoints")
    elif yes:
        print(f"removed {total / 1e6:,.1f} MB; every result is as it was")
    else:
        print(f"{total / 1e6:,.1f} MB in all, nothing removed yet; --yes removes it")


if __name__ == "__main__":
    from amscale.cli import run

    run(clean)
