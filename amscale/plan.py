"""Show what a sweep would run and cost, before anything is spent.

examples:
  python -m amscale.plan my.yaml                       the trials, what each costs, and what all of them cost
  python -m amscale.plan my.yaml grid.model.size=[10M,1B] launch.device_memory=80G
  python -m amscale.plan my.yaml --commands            also how to start each trial by hand
  python -m amscale.plan radius_cpu.yaml               what a probe of radii would compute and hold

settings that matter: those of the sweep; `python -m amscale.sweep --help` names them.
"""

import sys


def plan(*arguments: str, commands: bool = False, json: bool = False) -> int:
    """Print the table of trials: shape, N, D, steps, FLOPs, memory, ZeRO stage, processes, time.

    Args:
        arguments: CONFIG is a YAML file, or the name of one that comes with the package (quick.yaml if none is given);
            settings go on top of it.
        commands: also print the command that starts each trial by hand.
        json: print one JSON document on standard output instead.
    """
    from dataclasses import asdict

    from amscale.api import Sweep
    from amscale.cli import print_json
    from amscale.config import split_arguments
    from amscale.config.loading import read_yaml
    from amscale.radius.configuration import is_radius, load
    from amscale.radius.plan import plan_radius, print_radius_plan
    from amscale.reporting.plan_table import plan_document, print_commands, print_plan
    from amscale.reporting.terminal import make_console

    path, overrides = split_arguments(arguments)
    if is_radius(read_yaml(path)):
        radius = plan_radius(load(path, overrides))
        print_json(asdict(radius)) if json else print_radius_plan(radius, make_console())
        return 0
    planned = Sweep(path, overrides)._plan_here()
    if json:
        print_json(plan_document(planned, (path, overrides) if commands else None))
        return 0
    print_plan(planned, make_console())
    if commands:
        print_commands(planned, path, overrides, make_console())
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(plan, sys.argv[1:])
