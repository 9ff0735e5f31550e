"""What is right and wrong with a cluster, as one table on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.diagnosis.findings import Finding
from amscale.errors import one_line


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """Print a row for each finding, and below the table how many are wrong."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "machine", "found"):
        table.add_column(column)
    for finding in found:
        said = Text(one_line(finding.says))
        if not finding.ok:
            said.append(f"\n→ {one_line(finding.mend)}", style="yellow")
        mark = Text("✓", style="green") if finding.ok else Text("✗", style="red")
        table.add_row(mark, Text(finding.check), Text(finding.host), said)
    console.print(table)
    wrong = sum(not finding.ok for finding in found)
    console.print(f"{wrong} of {len(found)} checks found something wrong" if wrong else "nothing is wrong")
