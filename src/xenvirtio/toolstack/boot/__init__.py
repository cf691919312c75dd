"""Kernel and ramdisk out of a guest's virtio disk, at each of its starts.

files.py  runs pygrub, which may do nothing else
disk.py   the image for it, as a block device of its own
"""
