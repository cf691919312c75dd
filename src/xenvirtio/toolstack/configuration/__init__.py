"""What a guest's configuration says.

grammar.py        text → settings with their places (xl.cfg(5))
configuration.py  settings → effective values, and the text that goes to xl
disk.py           one entry of `disk=[…]` (xl-disk-configuration(5))
vif.py            one entry of `vif=[…]` (xl-network-configuration(5))
served.py         who serves an entry: xenvirtio, or the guest's own QEMU
entries.py        all entries of a guest, and whether they agree
qemu.py           devices of the guest's QEMU, as libxl takes them
bootloader.py     a boot loader that reads a virtio disk
xm.py             what only xm understood
guest.py          all of it: a guest
"""
