"""QEMU's command line: the machine, and how it is accelerated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenvirtio.lab.dom0 import protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

#: CPU models that run PV, PVH and HVM guests on Xen 4.17 and 4.20. For TCG: SMAP crashes a PV dom0, MONITOR
#: panics Xen in mwait, RDTSCP intercepts are mis-reported by QEMU 7.2's SVM; the others are slow or not
#: right either.
CPU_MODELS = {
    "tcg": "EPYC-v1,+svm,-monitor,-smap,-smep,-umip,-fsgsbase,-rdpid,-rdtscp",
    "kvm": "host,-monitor,-smap,-smep,-umip",
}
#: names that the lab's folder holds for QEMU, which runs in it: no path of the user's needs quoting
DISK, PAYLOAD, XEN, VMLINUZ, INITRD, QMP = "disk.qcow2", "payload.raw", "xen", "vmlinuz", "initrd.img", "qmp"
SNAPSHOT = "dom0"


@dataclass(frozen=True)
class Shape:
    """The machine's size; part of a snapshot's key. A processor for dom0 and for each type of guest."""

    memory_mib: int = 6144
    dom0_mib: int = 2048
    cpus: int = 4


def xen_arguments(shape: Shape) -> str:
    """Xen's command line.

    Memory is not scrubbed at boot: untouched pages cost neither time nor snapshot. dom0 has one processor:
    with two, each fork and exec of a PV dom0 waits for the other one's TLB, under emulation three to six
    times as long.

    Xen switches floating-point state eagerly. Lazily, its default without `spec-ctrl`'s mitigations, programs
    in dom0 and in guests crash when two guests compute at once (two of some ten runs, against none of 22):
    as if they ran on with a stranger's registers, where emulation does not raise the fault that this needs.
    """
    return (
        f"dom0_mem={shape.dom0_mib}M,max:{shape.dom0_mib}M dom0_max_vcpus=1 dom0_vcpus_pin "
        "console=com1 com1=115200,8n1 bootscrub=0 spec-ctrl=no,eager-fpu=yes loglvl=info guest_loglvl=warning"
    )


def dom0_arguments() -> str:
    """dom0's command line. Under emulation the TSC looks skewed: it is not offered as a clock."""
    return "console=hvc0 panic=1 clocksource=xen tsc=unstable mitigations=off random.trust_cpu=on loglevel=4"


def arguments(name: str, accelerator: str, shape: Shape, boot: str, restore: bool) -> list[str]:
    """The program's arguments, for a process that runs in the lab's folder.

    `boot` is the boot's log folder relative to it. With `restore` the machine continues from the snapshot;
    all else must then be as it was when the snapshot was taken.
    """
    accel = ["-accel", "tcg,thread=multi"] if accelerator == "tcg" else ["-accel", accelerator]
    argv = ["-name", f"xenvirtio-{name}", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-vga", "none", "-no-reboot", "-machine", "pc", *accel, "-cpu", CPU_MODELS[accelerator]]
    argv += ["-smp", str(shape.cpus), "-m", f"{shape.memory_mib}M", "-rtc", "base=utc"]
    argv += ["-kernel", XEN, "-append", xen_arguments(shape)]
    argv += ["-initrd", f"{VMLINUZ} {_escaped(dom0_arguments())},{INITRD}"]
    argv += ["-drive", f"file={DISK},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap"]
    argv += ["-device", "virtio-blk-pci,drive=root"]
    argv += ["-drive", f"file={PAYLOAD},if=none,id=payload,format=raw,read-only=on"]
    argv += ["-device", "virtio-blk-pci,drive=payload"]
    argv += ["-device", f"virtio-serial-pci,max_ports={protocol.PORTS + 1}"]
    for number in range(protocol.PORTS):
        argv += ["-chardev", f"socket,id=agent{number},path={port(number)},server=on,wait=off"]
        device = f"virtserialport,chardev=agent{number},nr={number + 1}"
        argv += ["-device", f"{device},name={protocol.PORT_NAME.format(number)}"]
    argv += ["-chardev", f"file,id=console,path={boot}/console.log", "-serial", "chardev:console"]
    argv += ["-qmp", f"unix:{QMP},server=on,wait=off"]
    return argv + (["-loadvm", SNAPSHOT] if restore else [])


def port(number: int) -> str:
    """Name of a port's socket in the lab's folder."""
    return f"agent.{number}"


def _escaped(arguments: str) -> str:
    """A comma in a multiboot module's arguments is written twice."""
    return arguments.replace(",", ",,")


def sockets() -> Sequence[str]:
    """Names of every socket that QEMU makes in the folder."""
    return [QMP, *(port(number) for number in range(protocol.PORTS))]
