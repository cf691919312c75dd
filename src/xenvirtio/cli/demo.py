"""xenvirtio demo"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--release",
    "-r",
    default="trixie",
    help="trixie (Xen 4.20, Linux 6.12) or bookworm (Xen 4.17, Linux 6.1).",
)
@click.option(
    "--memory-access", "-m", default="grant", help="The way to the guest's memory: grant or foreign."
)
@click.option(
    "--type",
    "-t",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only guests of this type: pv, pvh or hvm. May be given again.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path("build/demo.json"),
    help="Where the results go, as JSON.",
)
@click.option("--keep", is_flag=True, help="Leave the lab running, to look around.")
def app(release: str, memory_access: str, types: tuple[str, ...], output: Path, keep: bool) -> None:
    """Boot a real Xen, start PV, PVH and HVM guests with a virtio disk and NIC, and prove that they work.

    Needs no Xen, and no KVM. Exit status 0 only if every byte and packet was checked and right.
    """
    import json
    import sys

    from xenvirtio.errors import UsageError
    from xenvirtio.lab import Lab
    from xenvirtio.lab.demo import run
    from xenvirtio.lab.demo.report import report
    from xenvirtio.lab.guest import TYPES
    from xenvirtio.lab.stages import progress_for
    from xenvirtio.spec.xenbus import MemoryAccess

    modes = (MemoryAccess.GRANT, MemoryAccess.FOREIGN)
    if memory_access not in modes:
        raise UsageError(f"no memory access {memory_access!r}", hint=f"one of: {', '.join(modes)}")
    unknown = [kind for kind in types if kind not in TYPES]
    if unknown:
        raise UsageError(f"no guest type {unknown[0]!r}", hint=f"one of: {', '.join(TYPES)}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)  # an older run's result must not pass for this one's
    progress = progress_for(sys.stderr)
    lab = Lab(f"demo-{release}", release, progress=progress)
    try:
        result = run(lab, tuple(dict.fromkeys(types)) or TYPES, memory_access, progress)
    finally:
        if not keep:
            lab.down()
    part = output.with_name(f".{output.name}.part")
    part.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    part.replace(output)
    print(report(result))
    print(f"Written to {output}")
    if not result.ok:
        sys.exit(1)
