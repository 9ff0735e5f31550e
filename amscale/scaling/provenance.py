"""Name what made the points of a fit where it is not the same for all: precision, device, versions of software.

A trial's id says which precision was asked for, and `auto` is bf16 on a GPU and fp32 on a CPU: a grid that is filled in
two places may hold both, and its ids do not tell.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from amscale.scaling.points import Point
from amscale.trials.records import TrialResult


def mixtures(points: Sequence[Point]) -> list[str]:
    """Return a warning for each of precision, device and versions that differs between points, with counts of trials.

    Points of a table, and what a result of an earlier version does not record, are passed over.
    """
    results = [point.result for point in points if point.result]
    warnings = []
    precisions = _counts(result.engine.precision for result in results)
    if len(precisions) > 1:
        most = precisions.most_common(1)[0][0]
        warnings.append(
            f"the points mix precisions: {_listed(precisions)}; losses of unlike arithmetic differ: fit one of them "
            f"with --where engine.precision={most}"
        )
    devices = _counts(map(_device, results))
    for kind in [name for name in devices if any(other.startswith(f"{name} (") for other in devices)]:
        del devices[kind]  # results that name the kind alone, of an earlier version
    if len(devices) > 1:
        warnings.append(f"the points mix devices: {_listed(devices)}")
    packages = sorted({name for result in results for name in result.versions})
    versions = {name: _counts(result.versions.get(name) for result in results) for name in packages}
    reported = sum("parameters" in result.script.reported for result in results if result.script)
    if reported:
        warnings.append(
            f"N is what the training script reported in {reported} of {len(points)} trials, whatever counts as N"
        )
    samples = _counts(map(_validation_sample, results))
    if len(samples) > 1:
        warnings.append(
            f"the points measure validation loss on unlike samples: {_listed(samples)}; the first tokens can be easier "
            "or harder than all: fit one kind with --where train.validation_tokens=auto"
        )
    different = [f"{name} {_listed(counts)}" for name, counts in versions.items() if len(counts) > 1]
    if different:
        warnings.append(f"the points mix versions: {'; '.join(different)}")
    return warnings


def _device(result: TrialResult) -> str | None:
    """Return `cpu` or `cuda`, with the name of the device where it is known."""
    if result.engine.device is None:
        return None
    kind, name = result.engine.device.partition(":")[0], result.engine.device_name
    return f"{kind} ({name})" if name else kind


def _validation_sample(result: TrialResult) -> str | None:
    """Return which held-out tokens a run was validated on: results of earlier versions took the first ones."""
    wanted = result.setting("train.validation_tokens")
    if wanted is None or result.script:
        return None
    return "spread evenly" if wanted == "auto" else "the first ones"


def _counts(values: Iterable[str | None]) -> Counter[str]:
    return Counter(value for value in values if value)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{value} ({number} trial{'s' * (number > 1)})" for value, number in counts.most_common())
