"""What is right and wrong with a cluster, as one table on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.diagnosis.findings import Finding
from amscale.errors import one_line

_MOST_NAMES = 3


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """Print one row for all machines of which a check finds the same, and below the table how many are wrong."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "machine", "found"):
        table.add_column(column, overflow="fold")
    everywhere = len({finding.host for finding in found if finding.check != "reached"} - {"all"})
    checks = list(dict.fromkeys(finding.check for finding in found))
    rows: dict[tuple[int, bool, str, str], list[str]] = {}
    for finding in found:
        key = (checks.index(finding.check), finding.ok, finding.says, finding.mend)
        rows.setdefault(key, []).append(finding.host)
    for (check, ok, says, mend), hosts in sorted(rows.items(), key=lambda row: row[0][0]):
        said = Text(one_line(says))
        if not ok:
            said.append(f"\n→ {one_line(mend)}", style="yellow")
        mark = Text("✓", style="green") if ok else Text("✗", style="red")
        table.add_row(mark, Text(checks[check]), Text(_names(hosts, everywhere, ok)), said)
    console.print(table)
    wrong = sum(not ok for _, ok, _, _ in rows)
    lines = f"{wrong} of {len(rows)} lines above" if wrong > 1 else "one line above"
    console.print(f"{lines} must be mended" if wrong else "nothing is wrong", highlight=False)


def _names(hosts: list[str], everywhere: int, ok: bool) -> str:
    if len(hosts) == everywhere > 1 or hosts == ["all"]:
        return "all"
    if len(hosts) <= _MOST_NAMES or not ok:
        return "\n".join(hosts)
    return "\n".join([*hosts[: _MOST_NAMES - 1], f"and {len(hosts) - _MOST_NAMES + 1} more"])
