"""Measure the sampled radius of a trained model's activations, beside r* and controls."""

import sys


def probe(*arguments: str, json: bool = False) -> int:
    """Measure nearest-neighbour distances among the activations of random chunks of text: the radius r̂ beside r*.

    The controls are the same shape with random weights, shuffled coordinates, a Gaussian of the same covariance, and
    the distance against the size of the sample.

    Args:
        arguments: [CONFIG] [key=value …]. CONFIG is a YAML file, or the name of one that comes with the package
            (radius_cpu.yaml if none is given); settings go on top of it.
        json: print one JSON document, the summary, on standard output; everything else goes to standard error.

    Returns:
        0 when everything was measured.
    """
    import json as decoder

    from amscale.cli import print_json
    from amscale.radius.configuration import load
    from amscale.radius.experiment import run_radius

    words = [str(argument) for argument in arguments]
    path = words.pop(0) if words and "=" not in words[0] else "radius_cpu.yaml"
    folder = run_radius(load(path, words))
    if json:
        print_json({"folder": str(folder), **decoder.loads((folder / "summary.json").read_text(encoding="utf-8"))})
    return 0


if __name__ == "__main__":
    from amscale.cli import run

    run(probe, sys.argv[1:])
