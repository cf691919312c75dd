// SPDX-License-Identifier: GPL-2.0
/*
 * The device page: allocation, commands, snapshot of the configuration space.
 */
#include <linux/module.h>

#include "virtio_xenbus.h"

static unsigned int command_limit = VXB_COMMAND_LIMIT;
module_param(command_limit, uint, 0644);
MODULE_PARM_DESC(command_limit, "Seconds to wait for the backend's answer to a command before the device is given up (default 30)");

/**
 * vxb_command_jiffies - how long the backend may take for an answer
 *
 * Return: the limit in jiffies.
 */
unsigned long vxb_command_jiffies(void)
{
	return clamp(READ_ONCE(command_limit), 1U, 3600U) * HZ;
}

/**
 * vxb_break - gives a device up
 * @vxb: device
 * @format: why, without a newline; printed once a connection
 *
 * Its queues and commands fail from now on. Callable from any context but the
 * event handler, a virtqueue's callbacks included.
 */
void vxb_break(struct vxb_device *vxb, const char *format, ...)
{
	struct va_format vaf;
	va_list args;

	if (xchg(&vxb->broken, true))
		return;

	va_start(args, format);
	vaf.fmt = format;
	vaf.va = &args;
	dev_err(&vxb->xdev->dev, "device given up: %pV\n", &vaf);
	va_end(args);

	vxb_queues_break(vxb);
	wake_up_all(&vxb->answered);
}

static bool vxb_answered(struct vxb_device *vxb, u32 seq)
{
	return READ_ONCE(vxb->broken) ||
	       le32_to_cpu(READ_ONCE(vxb->page->ack_seq)) == seq;
}

static int vxb_exchange(struct vxb_device *vxb, const struct vxb_command *c,
			u64 *value)
{
	struct vxb_page *page = vxb->page;
	u32 seq, result;

	if (READ_ONCE(vxb->broken))
		return -EIO;

	seq = ++vxb->seq;
	page->cmd = cpu_to_le32(c->code);
	page->queue = cpu_to_le32(c->queue);
	page->value = cpu_to_le32(c->value);
	page->offset = cpu_to_le32(c->offset);
	page->desc = cpu_to_le64(c->desc);
	page->driver = cpu_to_le64(c->driver);
	page->device = cpu_to_le64(c->device);
	page->port = cpu_to_le32(c->port);
	page->driver_features[0] = cpu_to_le64(vxb->features);
	page->driver_features[1] = 0;
	if (c->data)
		memcpy(page->data, c->data, min_t(u32, c->value, VXB_DATA_MAX));
	virt_wmb(); /* the command before its number */
	WRITE_ONCE(page->cmd_seq, cpu_to_le32(seq));
	virt_mb(); /* the number before the event */
	notify_remote_via_irq(vxb->channel.irq);

	if (!wait_event_timeout(vxb->answered, vxb_answered(vxb, seq),
				vxb_command_jiffies()))
		return -ETIMEDOUT;
	if (READ_ONCE(vxb->broken))
		return -EIO;

	virt_rmb(); /* the answer is there, then what it says */
	result = le32_to_cpu(READ_ONCE(page->ack_result));
	if (value)
		*value = le64_to_cpu(READ_ONCE(page->ack_value));
	switch (result) {
	case VXB_OK:
		return 0;
	case VXB_INVALID:
		return -EINVAL;
	case VXB_UNKNOWN:
		return -EOPNOTSUPP;
	case VXB_STATE:
		return -EBUSY;
	case VXB_FAULT:
		return -EFAULT;
	default:
		return -EPROTO;
	}
}

/**
 * vxb_command - has the device execute one command
 * @vxb: device
 * @c: the command
 * @value: where its value goes, or NULL
 *
 * Sleeps until the device answers, at most command_limit seconds; a device that
 * does not answer is given up.
 *
 * Return: 0, what the device said against it, or -EIO from a device given up.
 */
int vxb_command(struct vxb_device *vxb, const struct vxb_command *c, u64 *value)
{
	int err;

	atomic64_inc(&vxb->commands);
	mutex_lock(&vxb->command_lock);
	err = vxb_exchange(vxb, c, value);
	mutex_unlock(&vxb->command_lock);

	if (err == -ETIMEDOUT) {
		vxb_break(vxb, "%s did not answer command %u within %lu s",
			  vxb->xdev->otherend, c->code,
			  vxb_command_jiffies() / HZ);
		return -EIO;
	}
	vxb_config_refresh(vxb, false);
	return err;
}

/**
 * vxb_config_refresh - takes a new snapshot of the configuration space
 * @vxb: device
 * @force: even if its generation is the one we have
 *
 * The drivers read the snapshot, so that a backend cannot keep them reading for
 * ever. A configuration that does not hold still is left for the event which
 * must follow its change.
 *
 * Return: whether a snapshot was taken.
 */
bool vxb_config_refresh(struct vxb_device *vxb, bool force)
{
	unsigned int words = DIV_ROUND_UP(vxb->config_size, 4);
	unsigned int attempt, i;
	unsigned long flags;
	bool taken = false;
	u32 generation;

	spin_lock_irqsave(&vxb->config_lock, flags);
	for (attempt = 0; attempt < VXB_CONFIG_TRIES && !taken; attempt++) {
		generation = le32_to_cpu(READ_ONCE(vxb->page->config_generation));
		if (!force && generation == vxb->generation)
			break;
		if (generation & 1) {
			cpu_relax();
			continue;
		}
		virt_rmb(); /* the generation before the bytes ... */
		for (i = 0; i < words; i++)
			vxb->config_new[i] = READ_ONCE(vxb->page->config[i]);
		virt_rmb(); /* ... and the bytes before the generation */
		taken = generation ==
			le32_to_cpu(READ_ONCE(vxb->page->config_generation));
	}
	if (taken) {
		memcpy(vxb->config, vxb->config_new, words * sizeof(u32));
		vxb->generation = generation;
	}
	spin_unlock_irqrestore(&vxb->config_lock, flags);
	return taken;
}

/**
 * vxb_page_start - allocates the device page
 * @vxb: device
 *
 * Return: 0 or an error; then nothing is left behind.
 */
int vxb_page_start(struct vxb_device *vxb)
{
	void *page;
	int err;

	err = xenbus_setup_ring(vxb->xdev, GFP_KERNEL, &page, 1, &vxb->page_ref);
	if (err)
		return err;
	vxb->page = page;
	vxb->seq = 0;
	vxb->status = 0;
	vxb->features = 0;
	vxb->config_size = 0;
	vxb->generation = 0;
	WRITE_ONCE(vxb->broken, false);
	return 0;
}

/**
 * vxb_page_stop - frees the device page, if there is one
 * @vxb: device, whose event channel is gone
 *
 * A page that the backend still maps is freed once it lets go.
 */
void vxb_page_stop(struct vxb_device *vxb)
{
	void *page = vxb->page;

	if (!page)
		return;
	vxb->page = NULL;
	xenbus_teardown_ring(&page, 1, &vxb->page_ref);
}

/**
 * vxb_page_check - looks at what a newly connected device says of itself
 * @vxb: device
 * @device_id: its virtio device id
 * @vendor_id: its vendor
 *
 * Return: 0, or -EPROTO with the reason in the log and in XenStore.
 */
int vxb_page_check(struct vxb_device *vxb, u32 *device_id, u32 *vendor_id)
{
	u32 magic = le32_to_cpu(READ_ONCE(vxb->page->magic));
	u32 version = le32_to_cpu(READ_ONCE(vxb->page->version));
	u32 queues = le32_to_cpu(READ_ONCE(vxb->page->num_queues));
	u32 size = le32_to_cpu(READ_ONCE(vxb->page->config_size));

	*device_id = le32_to_cpu(READ_ONCE(vxb->page->device_id));
	*vendor_id = le32_to_cpu(READ_ONCE(vxb->page->vendor_id));
	if (magic != VXB_MAGIC || version != VXB_VERSION || !*device_id ||
	    queues > VXB_QUEUES_MAX || size > VXB_CONFIG_MAX) {
		xenbus_dev_fatal(vxb->xdev, -EPROTO,
				 "device page not valid: magic %#x version %u device %u queues %u configuration %u",
				 magic, version, *device_id, queues, size);
		return -EPROTO;
	}
	vxb->num_queues = queues;
	vxb->config_size = size;
	if (!vxb_config_refresh(vxb, true)) {
		xenbus_dev_fatal(vxb->xdev, -EPROTO,
				 "configuration space does not hold still");
		return -EPROTO;
	}
	vxb->seen_generation = vxb->generation;
	return 0;
}
