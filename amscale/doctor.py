"""Examine a cluster before it trains: every machine, its storage and network.

examples:
  python -m amscale.doctor                                      this machine
  python -m amscale.doctor storage=/shared/sweeps               this machine, and the folder of the sweeps
  python -m amscale.doctor host1,host2 storage=/shared/sweeps   these machines, as launch/trial.sh would use them
  python -m amscale.doctor launch.address=auto                  every machine of a running Ray cluster
  python -m amscale.doctor --slurm                              the nodes of this Slurm allocation

settings that matter: storage, launch.address, launch.device and launch.scratch, as the sweep will have them.
"""

import sys


def doctor(*arguments: str, slurm: bool = False, json: bool = False) -> int:
    """Print one table of what is right and what is wrong with the machines of a cluster, and how to mend it.

    Args:
        arguments: [HOSTS] [key=value …]: hosts that `launch/trial.sh` would take, as host1,host2; or settings such as
            launch.address=… for a Ray cluster and storage=…; this machine if neither is given.
        slurm: examine the nodes of the allocation that this command runs in.
        json: print one JSON document on standard output instead.

    Returns:
        0 when nothing is wrong, 1 otherwise.
    """
    from dataclasses import asdict

    from amscale.cli import print_json
    from amscale.diagnosis.examine import diagnose
    from amscale.reporting.findings_table import print_findings
    from amscale.reporting.terminal import make_console

    words = [str(argument) for argument in arguments]
    names = words.pop(0) if words and "=" not in words[0] else None
    found = diagnose(names, words, slurm_nodes=slurm)
    if json:
        print_json({"findings": [asdict(finding) for finding in found]})
    else:
        print_findings(found, make_console())
    return int(not all(finding.ok for finding in found))


if __name__ == "__main__":
    from amscale.cli import run

    run(doctor, sys.argv[1:])
