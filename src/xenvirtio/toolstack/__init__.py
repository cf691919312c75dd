"""Guest configurations, and guests with virtio devices on top of xl.

configuration/  what a guest's configuration says; nothing of this machine but its own settings file
boot/           kernel and ramdisk out of a guest's virtio disk
create.py       start a guest; undo all if anything fails
hotplug/        devices come to a guest that runs, change and go
lifecycle.py    the guest's power-off, reboot and crash
listing.py      what runs; rates.py how much it moves

checks.py       what must hold on this host before anything is made
connect.py      waiting for backend and frontend, and why they did not come
local.py        the toolstack of this machine
nodes.py        XenStore nodes of a guest's devices
records.py      what is remembered of a running guest
running.py      guests that run and their devices, by name
sharing.py      who else uses an image
xl.py           the program xl
"""
