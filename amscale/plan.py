"""Show what a sweep would run and cost, before anything is spent.

examples:
  python -m amscale.plan my.yaml                       the trials, what each costs, and what all of them cost
  python -m amscale.plan my.yaml grid.model.size=[10M,1B] launch.device_memory=80G
  python -m amscale.plan my.yaml --commands            also how to start each trial by hand
  python -m amscale.plan my.yaml --calibrate           times from steps measured on this machine
  python -m amscale.plan my.yaml --on h100 --price 2.5    times, memory and cost on machines of that card
  python -m amscale.plan radius_cpu.yaml               what a probe of radii would compute and hold

settings that matter: those of the sweep; `python -m amscale.sweep --help` names them.
"""

import sys


def plan(
    *arguments: str,
    commands: bool = False,
    calibrate: bool = False,
    on: str | None = None,
    price: float | None = None,
    every_trial: bool = False,
    json: bool = False,
) -> int:
    """Print the table of trials: shape, N, D, steps, FLOPs, memory, ZeRO stage, processes, time.

    Args:
        arguments: CONFIG is a YAML file, or the name of one that comes with the package (quick.yaml if none is given);
            settings go on top of it.
        commands: also print the command that starts each trial by hand.
        calibrate: measure steps of models of this size on this machine first, for some seconds, and keep the figures.
        on: plan for machines of this card, such as h100, by its data sheet.
        price: of an hour of one device; also print what the sweep costs.
        every_trial: print a row for each trial also where there are more than 40, instead of one for each shape.
        json: print one JSON document on standard output instead.
    """
    from dataclasses import asdict

    from amscale.api import Sweep
    from amscale.cli import print_json
    from amscale.config import split_arguments
    from amscale.config.loading import read_yaml
    from amscale.errors import InputError
    from amscale.planning.calibrate import calibrate as measure
    from amscale.radius.configuration import is_radius, load
    from amscale.radius.plan import plan_radius, print_radius_plan
    from amscale.reporting.plan_table import plan_document, print_commands, print_plan
    from amscale.reporting.terminal import make_console

    path, overrides = split_arguments(arguments)
    if is_radius(read_yaml(path)):
        radius = plan_radius(load(path, overrides))
        print_json(asdict(radius)) if json else print_radius_plan(radius, make_console())
        return 0
    if calibrate and on is not None:
        raise InputError(f"calibrate: measures this machine, and on={on!r} names a card; give one of them")
    if price is not None and (isinstance(price, bool) or not isinstance(price, int | float) or price <= 0):
        raise InputError(f"price={price!r} must be a positive number: what an hour of one device costs")
    sweep = Sweep(path, overrides)
    planned = sweep._plan_here(None if on is None else str(on))
    if calibrate and measure(planned, sweep.experiment.launch.concurrent_trials):
        planned = sweep._plan_here()
    if json:
        print_json(plan_document(planned, (path, overrides) if commands else None, price))
        return 0
    print_plan(planned, make_console(), price, every_trial)
    if commands:
        print_commands(planned, path, overrides, make_console())
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(plan, sys.argv[1:])
