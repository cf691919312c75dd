// SPDX-License-Identifier: GPL-2.0
/*
 * Whether a device is in use in this guest, for a toolstack that would rather
 * not take it away then: a disk that is mounted, swapped to, or otherwise open.
 */
#include <linux/blkdev.h>
#include <linux/string.h>

#include "virtio_xenbus.h"

static int vxb_count_openers(struct device *dev, void *count)
{
	/* the class itself is not exported to modules */
	if (dev->class && !strcmp(dev->class->name, "block"))
		*(unsigned int *)count += disk_openers(dev_to_disk(dev));
	return 0;
}

/**
 * vxb_users - how often the disks of a device are open
 * @vxb: device
 *
 * A partition counts once, however often it is open.
 *
 * Return: the number, 0 for a device without disks.
 */
unsigned int vxb_users(struct vxb_device *vxb)
{
	unsigned int count = 0;

	if (vxb->virtio)
		device_for_each_child(&vxb->virtio->vdev.dev, &count,
				      vxb_count_openers);
	return count;
}
