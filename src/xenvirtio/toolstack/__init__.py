"""Guest configurations, and guests with virtio devices on top of xl.

grammar.py    text of a configuration → settings with their places (xl.cfg(5))
config.py     settings → effective values, and the text that goes to xl
disk.py       one entry of `disk=[…]` (xl-disk-configuration(5))
vif.py        one entry of `vif=[…]` (xl-network-configuration(5))
guest.py      a configuration → a guest: its virtio devices and its lifecycle
checks.py     what must hold on this host before anything is made
nodes.py      XenStore nodes of a guest's devices
connect.py    waiting for backend and frontend, and why they did not come
xl.py         the program xl
create.py     start a guest; undo all if anything fails
records.py    what is remembered of a running guest
lifecycle.py  the guest's power-off, reboot and crash
listing.py    what runs
running.py    guests that run and their devices, by name
attach.py     a device for a guest that runs; nothing stays of it if anything fails
detach.py     and away again; resize.py and link.py change it, update.py waits until that holds
sharing.py    who else uses an image
"""
