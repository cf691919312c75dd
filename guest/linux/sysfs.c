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

/**
 * struct vxb_counter - an attribute that shows a counter of the device
 * @attr: the attribute
 * @offset: of its atomic64_t in struct vxb_device
 */
struct vxb_counter {
	struct device_attribute attr;
	size_t offset;
};

static ssize_t counter_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	struct vxb_counter *counter = container_of(attr, struct vxb_counter, attr);
	atomic64_t *value = dev_get_drvdata(dev) + counter->offset;

	return sysfs_emit(buf, "%lld\n", atomic64_read(value));
}

static struct vxb_counter vxb_grants_in_use = {
	.attr = __ATTR(grants_in_use, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, grants_in_use),
};

static struct vxb_counter vxb_grants_held = {
	.attr = __ATTR(grants_held, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, grants_held),
};

static struct vxb_counter vxb_grants_made = {
	.attr = __ATTR(grants_made, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, grants_made),
};

static struct vxb_counter vxb_pages_bounced = {
	.attr = __ATTR(pages_bounced, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, pages_bounced),
};

static struct vxb_counter vxb_kicks = {
	.attr = __ATTR(kicks, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, kicks),
};

static struct vxb_counter vxb_events = {
	.attr = __ATTR(events, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, events),
};

static struct vxb_counter vxb_events_spurious = {
	.attr = __ATTR(events_spurious, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, events_spurious),
};

static struct vxb_counter vxb_commands = {
	.attr = __ATTR(commands, 0444, counter_show, NULL),
	.offset = offsetof(struct vxb_device, commands),
};

static struct attribute *vxb_attrs[] = {
	&dev_attr_transport.attr,
	&dev_attr_memory_access.attr,
	&dev_attr_trusted.attr,
	&dev_attr_broken.attr,
	&vxb_grants_in_use.attr.attr,
	&vxb_grants_held.attr.attr,
	&vxb_grants_made.attr.attr,
	&vxb_pages_bounced.attr.attr,
	&vxb_kicks.attr.attr,
	&vxb_events.attr.attr,
	&vxb_events_spurious.attr.attr,
	&vxb_commands.attr.attr,
	NULL
};

static const struct attribute_group vxb_group = {
	.attrs = vxb_attrs,
};

const struct attribute_group *vxb_groups[] = {
	&vxb_group,
	NULL
};
