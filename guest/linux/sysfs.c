// SPDX-License-Identifier: GPL-2.0
/*
 * What a device shows of itself in /sys/bus/xen/devices/virtio-N/.
 */
#include <linux/device.h>
#include <linux/sysfs.h>

#include "virtio_xenbus.h"

static ssize_t transport_show(struct device *dev, struct device_attribute *attr,
			      char *buf)
{
	return sysfs_emit(buf, "xenbus\n");
}
static DEVICE_ATTR_RO(transport);

static ssize_t memory_access_show(struct device *dev,
				  struct device_attribute *attr, char *buf)
{
	struct vxb_device *vxb = dev_get_drvdata(dev);
	const struct vxb_memory *memory = READ_ONCE(vxb->memory);

	return sysfs_emit(buf, "%s\n", memory ? memory->name : "");
}
static DEVICE_ATTR_RO(memory_access);

static ssize_t trusted_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	struct vxb_device *vxb = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%d\n", vxb->trusted);
}
static DEVICE_ATTR_RO(trusted);

static ssize_t broken_show(struct device *dev, struct device_attribute *attr,
			   char *buf)
{
	struct vxb_device *vxb = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%d\n", READ_ONCE(vxb->broken));
}
static DEVICE_ATTR_RO(broken);

#define VXB_COUNTER(name, read)						\
static ssize_t name##_show(struct device *dev,				\
			   struct device_attribute *attr, char *buf)	\
{									\
	struct vxb_device *vxb = dev_get_drvdata(dev);			\
									\
	return sysfs_emit(buf, "%lld\n", (long long)read(&vxb->name));	\
}									\
static DEVICE_ATTR_RO(name)

VXB_COUNTER(grants_in_use, atomic_read);
VXB_COUNTER(grants_held, atomic_read);
VXB_COUNTER(grants_made, atomic64_read);
VXB_COUNTER(pages_bounced, atomic64_read);
VXB_COUNTER(kicks, atomic64_read);
VXB_COUNTER(events, atomic64_read);
VXB_COUNTER(events_spurious, atomic64_read);
VXB_COUNTER(commands, atomic64_read);

static struct attribute *vxb_attrs[] = {
	&dev_attr_transport.attr,
	&dev_attr_memory_access.attr,
	&dev_attr_trusted.attr,
	&dev_attr_broken.attr,
	&dev_attr_grants_in_use.attr,
	&dev_attr_grants_held.attr,
	&dev_attr_grants_made.attr,
	&dev_attr_pages_bounced.attr,
	&dev_attr_kicks.attr,
	&dev_attr_events.attr,
	&dev_attr_events_spurious.attr,
	&dev_attr_commands.attr,
	NULL
};

static const struct attribute_group vxb_group = {
	.attrs = vxb_attrs,
};

const struct attribute_group *vxb_groups[] = {
	&vxb_group,
	NULL
};
