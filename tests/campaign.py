"""A fault campaign: sweeps on three hosts that are disturbed at random instants, held against one that is not.

    python tests/campaign.py --faults 50 --seed 0

Kinds, victims and instants follow from the seed; what a fault meets there follows from the machine's speed. Prints
a line a fault as it happens, then totals by kind and the comparison. Exit status 1 where anything differs from calm.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from helpers import hosts as fleet
from helpers.commands import wait_until
from helpers.faults import KINDS, Fault, Sweep, inject

# Device memory such that the smaller model needs one machine, and the larger two.
CONFIGURATION = """
name: campaign
grid: {model.size: [1.7k, 6.6k], seed: [0, 1]}
model: {family: vanilla, layers: 2, dropout: 0.1}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 1500, batch_tokens: 48, learning_rate: 1e-3, validate_every: 100, validation_tokens: 500}
launch:
  {machines: auto, zero_stage: 1, device_memory: 647575k, retries: 1000, checkpoint_every: 50, stalled_after: 40,
   grace: 3}
probes: {every: 0, sequences: 0}
"""
LATEST_SECONDS = 5.0
"""A fault comes this long at most after a trial has been seen to train."""


@dataclass
class Campaign:
    """What was done, and what it left."""

    faults: list[Fault] = field(default_factory=list)
    sweeps: int = 0
    differences: list[str] = field(default_factory=list)
    records: int = 0
    """Loss records compared."""

    @property
    def wrong(self) -> list[str]:
        """Everything that should not be."""
        return [f"{f.kind}: {words}" for f in self.faults for words in f.wrong] + self.differences


def run(
    cluster: fleet.Hosts, folder: Path, kinds: Sequence[str], seed: int, overrides: Sequence[str] = ()
) -> Iterator[tuple[Campaign, Fault | None]]:
    """Do the faults in order, over as many sweeps as it takes; yields after each one, and None after a sweep."""
    chance = random.Random(seed)
    configuration = folder / "campaign.yaml"
    configuration.write_text(CONFIGURATION)
    arguments = [str(configuration), *overrides]
    campaign = Campaign()
    calm = Sweep(cluster, folder / "calm", arguments)
    assert calm.driver.wait(timeout=600) == 0, calm.output.read_text()
    waiting = list(kinds)
    while waiting:
        campaign.sweeps += 1
        sweep = Sweep(cluster, folder / f"sweep{campaign.sweeps}", arguments)
        kept: dict[Path, bytes] = {}
        while waiting and _reached(sweep, chance.uniform(0, LATEST_SECONDS)):
            kept = _results(sweep) | kept
            fault = inject(sweep, waiting.pop(0), chance)
            if not fault.victims:  # nothing ran where it would have struck: another time
                waiting.append(fault.kind)
                continue
            campaign.faults.append(fault)
            yield campaign, fault
        status = sweep.driver.wait(timeout=600)
        if status:
            campaign.differences.append(f"sweep {campaign.sweeps}: exit status {status}")
        campaign.differences += _differences(campaign, calm, sweep, kept)
        yield campaign, None


def _reached(sweep: Sweep, delay: float) -> bool:
    """Wait until a trial trains, then `delay`, then until one trains again; False once the sweep has ended."""
    for pause in (delay, 0.0):
        wait_until(lambda: sweep.driver.poll() is not None or sweep.training(), 600, "a trial that trains")
        time.sleep(pause)
    return sweep.driver.poll() is None


def _results(sweep: Sweep) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sweep.storage.glob("*/trials/*/result.json")}


def _differences(campaign: Campaign, calm: Sweep, sweep: Sweep, kept: dict[Path, bytes]) -> list[str]:
    """How the ledger of a disturbed sweep differs from the calm one's, and what it left running."""
    name, found = f"sweep {campaign.sweeps}", []
    folders = [{p.parent.name: p.parent for p in s.storage.glob("*/trials/*/result.json")} for s in (calm, sweep)]
    if set(folders[0]) != set(folders[1]):
        found.append(f"{name}: other trials: {sorted(set(folders[0]) ^ set(folders[1]))}")
    for label in sorted(set(folders[0]) & set(folders[1])):
        ours, theirs = (folder[label] for folder in folders)
        expected, got = _losses(ours), _losses(theirs)
        campaign.records += len(expected)
        if expected != got:
            found.append(f"{name}: {label}: losses differ ({len(expected)} records calm, {len(got)} disturbed)")
        if (ours / "model.safetensors").read_bytes() != (theirs / "model.safetensors").read_bytes():
            found.append(f"{name}: {label}: weights differ")
    lost = [path for path, content in kept.items() if not path.is_file() or path.read_bytes() != content]
    found += [f"{name}: lost or rewritten: {path}" for path in lost]
    found += [f"{name}: orphan {m.role} of {m.trial}" for m in sweep.members()]
    # Ray ends the actors, which own them, once the driver has ended.
    wait_until(lambda: not sweep.warm_servers(), 600, "an end of every warm server")
    return found


def _losses(trial: Path) -> list[tuple[str, int, float]]:
    lines = (trial / "metrics.jsonl").read_text().splitlines()
    return [(r["kind"], r["step"], r["loss"]) for r in map(json.loads, lines) if r["kind"] != "probe"]


def chosen_kinds(count: int, seed: int) -> list[str]:
    """Kinds in a random order, each about equally often."""
    chance, chosen = random.Random(seed), []
    while len(chosen) < count:
        deck = list(KINDS)
        chance.shuffle(deck)
        chosen += deck
    return chosen[:count]


def line(number: int, fault: Fault, seconds: float) -> str:
    """One row of the table."""
    victims = ", ".join(fault.victims) or "-"
    seen = f"{fault.noticed:6.1f} {fault.gone:6.1f}"
    reason = fault.reason.replace("|", "/")[:90]
    return f"{number:3} | {seconds:6.0f} | {fault.kind:20} | {seen} | {victims} | {reason} | " + "; ".join(
        [fault.outcome, *(f"WRONG: {words}" for words in fault.wrong)]
    )


def totals(campaign: Campaign) -> str:
    """Faults by kind, and what the comparison found."""
    rows = []
    for kind in KINDS:
        those = [fault for fault in campaign.faults if fault.kind == kind]
        if those:
            worst = [max(getattr(f, name) for f in those) for name in ("noticed", "gone")]
            wrong = sum(bool(fault.wrong) for fault in those)
            rows.append(
                f"{kind:20} {len(those):3} faults, noticed within {worst[0]:5.1f} s, gone within {worst[1]:5.1f} s"
            )
            rows[-1] += f", {wrong} wrong" if wrong else ""
    rows.append(
        f"{len(campaign.faults)} faults over {campaign.sweeps} sweeps; {campaign.records} losses compared bit for bit "
        f"and all weights; {len(campaign.wrong)} findings"
    )
    return "\n".join([*rows, *campaign.wrong])


def main() -> int:
    """Run a campaign and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subnet", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", help="only these, in this order")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings of the sweeps")
    given = parser.parse_args()
    kinds = given.kinds or chosen_kinds(given.faults, given.seed)
    if reason := fleet.missing():
        print(reason)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="campaign"))
    print("  # |      s | kind                 | noticed, gone (s) | trials | reason | outcome")
    began = time.monotonic()
    campaign = Campaign()
    try:
        with fleet.ray_hosts(3, subnet=given.subnet) as cluster:
            for campaign, fault in run(cluster, folder, kinds, given.seed, given.set):
                if fault is not None:
                    print(line(len(campaign.faults), fault, time.monotonic() - began), flush=True)
                else:
                    print(f"sweep {campaign.sweeps} ends: {len(campaign.differences)} differences", flush=True)
    finally:
        print(totals(campaign), flush=True)
    if campaign.wrong:
        print(f"kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
