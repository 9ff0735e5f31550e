"""Out of memory: the same global batch in smaller micro-batches.

A rank that runs out of memory leaves the marker `out_of_memory` in the trial's folder and ends. Whoever started it then
halves the micro-batch and starts it again from its newest checkpoint. What did not fit is kept in the folder, so that
later starts and drivers do not try it again.
"""

import json
import math
import time
from dataclasses import replace

from amscale.cluster.launcher import Placement
from amscale.trials.folder import TrialFolder
from amscale.trials.records import OutOfMemory

ADVICE = (
    "give it more machines or processes (launch.machines, launch.processes_per_machine), a higher launch.zero_stage, "
    "or a shorter data.context"
)


def halved(placement: Placement) -> Placement | None:
    """Half the micro-batch, rounded up, and as many more forward passes a step; None at a micro-batch of 1.

    The global batch stays what it is: where the passes hold more rows than it has, the last ones are left empty.
    """
    if placement.micro_batch == 1:
        return None
    micro_batch = math.ceil(placement.micro_batch / 2)
    rows = placement.micro_batch * placement.accumulation
    return replace(placement, micro_batch=micro_batch, accumulation=math.ceil(rows / micro_batch))


def fitting(folder: TrialFolder, placement: Placement) -> Placement:
    """A planned placement, with its micro-batch halved until it is smaller than any that is known not to fit."""
    tried = [entry.placement for entry in folder.out_of_memory()]
    known = [
        other.micro_batch
        for other in tried
        if replace(other, micro_batch=placement.micro_batch, accumulation=placement.accumulation) == placement
    ]
    while known and placement.micro_batch >= min(known) and (smaller := halved(placement)):
        placement = smaller
    return placement


def record(folder: TrialFolder, placement: Placement) -> str:
    """Keep that a placement did not fit, with the rank's own words for it; returns these."""
    reason = folder.out_of_memory_marker.read_text(encoding="utf-8").strip()
    entry = OutOfMemory(time=time.time(), reason=reason, placement=placement)
    with folder.out_of_memory_file.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry.to_tree()) + "\n")
    return reason
