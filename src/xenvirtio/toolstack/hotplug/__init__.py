"""Devices come to a guest that runs, change and go.

attach.py             a device comes; nothing of it stays if anything fails
detach.py             and goes again
resize.py, link.py    it changes
update.py             settings that the daemon carries out, waited for
"""
