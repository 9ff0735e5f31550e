"""Show what a sweep would run and cost, before anything is spent."""

import sys


def plan(*arguments: str, commands: bool = False) -> int:
    """Print the table of trials: shape, N, D, steps, FLOPs, memory, ZeRO stage, processes, time.

    Args:
        arguments: [CONFIG] [key=value …], as for the sweep.
        commands: also print the command that starts each trial by hand.
    """
    from amscale.cluster.resources import planned_resources
    from amscale.config import load, split_arguments
    from amscale.config.loading import read_yaml
    from amscale.planning.plan import plan_sweep
    from amscale.radius.configuration import is_radius, print_radius_plan
    from amscale.radius.configuration import load as load_radius
    from amscale.reporting.plan_table import print_commands, print_plan
    from amscale.reporting.terminal import make_console
    from amscale.trials.location import storage_folder

    path, overrides = split_arguments(arguments)
    if is_radius(read_yaml(path)):
        print_radius_plan(load_radius(path, overrides), make_console())
        return 0
    settings = load(path, overrides)
    with planned_resources(settings.launch) as resources:
        planned = plan_sweep(settings, storage_folder(settings), resources, build=False)
    console = make_console()
    print_plan(planned, console)
    if commands:
        print_commands(planned, path, overrides, console)
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(plan, sys.argv[1:])
