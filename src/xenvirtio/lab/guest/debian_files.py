"""What a lab's Debian guest has beside its packages: path in its root → text.

All of it is what an administrator would write. Units that nobody needs here are masked: each process costs
tenths of a second in an emulated guest.
"""

from __future__ import annotations

#: its packages, beside what is essential and the kernel, which is the lab's
PACKAGES = (
    "e2fsprogs",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
    "zstd",
)
#: files of packages that nobody needs here: names of hardware
EXCLUDED = ("/usr/lib/udev/hwdb.d/*",)
HOOK = "etc/initramfs-tools/hooks/virtio_xenbus"
GRUB_CONFIG = "boot/grub/grub.cfg"
#: units that only cost time here, or wait for what does not come
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "kmod-static-nodes.service",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@fuse.service",
    "run-lock.mount",
    "serial-getty@hvc0.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-load-credentials.service",
    "systemd-update-done.service",
    "tmp.mount",
)
#: udev asks after every device at boot; those of these subsystems are of use
UDEV_TRIGGER = """\
[Service]
ExecStart=
ExecStart=-udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=block --subsystem-match=net
"""


def files(hostname: str, kernel: str, root_uuid: str, machine_id: str, options: str) -> dict[str, str]:
    """Configuration of a guest whose root is the ext4 of this UUID; `options` for its kernel."""
    return {
        "etc/hostname": f"{hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n",
        "etc/machine-id": f"{machine_id}\n",
        "etc/fstab": f"UUID={root_uuid} / ext4 noatime,errors=remount-ro 0 0\n",
        "etc/systemd/network/virtio.network": "[Match]\nDriver=virtio_net\n\n[Network]\nDHCP=ipv4\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        "etc/systemd/journald.conf.d/volatile.conf": "[Journal]\nStorage=volatile\n",
        "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf": UDEV_TRIGGER,
        "etc/ssh/sshd_config.d/lab.conf": "UseDNS no\nUsePAM no\nPrintMotd no\nX11Forwarding no\n",
        "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=zstd\nRESUME=none\n",
        "etc/initramfs-tools/modules": "ext4\n",
        GRUB_CONFIG: grub_config(kernel, root_uuid, options),
        **{f"etc/systemd/system/{unit}": "" for unit in MASKED},
    }


def grub_config(kernel: str, root_uuid: str, options: str) -> str:
    """As update-grub writes it, less the menus for other cases."""
    return f"""\
set default="0"
set timeout=5
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple' {{
\tload_video
\tinsmod gzio
\tinsmod part_msdos
\tinsmod ext2
\tsearch --no-floppy --fs-uuid --set=root {root_uuid}
\techo\t'Loading Linux {kernel} ...'
\tlinux\t/boot/vmlinuz-{kernel} root=UUID={root_uuid} ro {options}
\techo\t'Loading initial ramdisk ...'
\tinitrd\t/boot/initrd.img-{kernel}
}}
"""
