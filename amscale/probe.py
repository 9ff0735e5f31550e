"""Measure the sampled radius of a trained model's activations, beside r* and controls.

examples:
  python -m amscale.probe radius_cpu.yaml model.path=results/quick
  python -m amscale.probe radius_cpu.yaml model.source=pretrained model.path=gpt2 data.corpus=text data.files=x.txt

settings that matter:
  name, storage                    the summary goes to <storage>/<name>
  model.source, model.path         a trial of a sweep, or a pretrained model by its name or folder
  sample.chunks, sample.tokens     how many vectors are measured, and from how long texts
  sample.layers                    whose output is measured; [-1] is the last
"""

import sys


def probe(*arguments: str, json: bool = False) -> int:
    """Measure nearest-neighbour distances among the activations of random chunks of text: the radius r̂ beside r*.

    The controls are the same shape with random weights, shuffled coordinates, a Gaussian of the same covariance, and
    the distance against the size of the sample.

    Args:
        arguments: CONFIG is a YAML file, or the name of one that comes with the package (radius_cpu.yaml if none is
            given); settings go on top of it.
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
