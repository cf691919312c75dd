"""xenvirtio doctor: whether this machine has what is needed."""

from __future__ import annotations

import sys

import click


@click.command("doctor")
def app() -> None:
    """Check this machine, and name the package for each missing thing.

    Exit status 0: the lab can run here; on a Xen dom0, the daemon can, and the lab is only looked at.
    """
    import os

    from xenvirtio.lab.doctor import examine, install_line
    from xenvirtio.lab.paths import Cache

    findings = examine(Cache.of(os.environ))
    marks = {True: "ok", False: "MISSING"}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = marks[finding.ok] if finding.ok or finding.required else "note"
        print(f"{mark:7}  {finding.name:{width}}  {finding.detail}")
        if not finding.ok and finding.hint:
            print(f"{'':7}  {'':{width}}  → {finding.hint}")
    line = install_line(findings)
    if line:
        print(f"xenvirtio: some packages are missing\n  try: {line}", file=sys.stderr)
    if not all(finding.ok for finding in findings if finding.required):
        sys.exit(1)
    dom0 = any(finding.name == "xen" and finding.ok for finding in findings)
    print("The daemon can run here." if dom0 else "The lab can run here.")
