"""Measure the sampled radius of a trained model's activations, beside r* and controls."""

import sys


def probe(*arguments: str) -> int:
    """Nearest-neighbour distances among the activations of random chunks of text: the radius r̂ beside r*.

    The controls are the same shape with random weights, shuffled coordinates, a Gaussian of the same covariance, and
    the distance against the size of the sample.

    Args:
        arguments: [CONFIG] [key=value …]. CONFIG is a YAML file, or the name of one that comes with the package
            (radius_cpu.yaml if none is given); settings go on top of it.

    Returns:
        0 when everything was measured.
    """
    from amscale.radius.configuration import load
    from amscale.radius.run import run_radius

    words = [str(argument) for argument in arguments]
    path = words.pop(0) if words and "=" not in words[0] else "radius_cpu.yaml"
    return run_radius(load(path, words))


if __name__ == "__main__":
    from amscale.cli import run

    run(probe, sys.argv[1:])
