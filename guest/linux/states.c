// SPDX-License-Identifier: GPL-2.0
/*
 * A device's way through the XenBus states, up to the virtio device that is
 * registered when its backend is connected, and back.
 *
 *   the backend is in  this frontend
 *   InitWait           goes to Initialised, having offered page, port and mode
 *   Connected          goes to Connected, having registered the virtio device
 *   Closing            goes to Closed, having removed the virtio device; stays
 *                      if that is in use and the backend does not insist
 *   Closed             frees page and port
 *   InitWait again     starts over
 */
#include <linux/delay.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>

#include "virtio_xenbus.h"

static bool queue_event_channels;
module_param(queue_event_channels, bool, 0644);
MODULE_PARM_DESC(queue_event_channels, "Give each queue an event channel of its own, where the backend can; devices that connect later (default N: one a device)");

static void vxb_virtio_release(struct device *dev)
{
	kfree(container_of(dev_to_virtio(dev), struct vxb_virtio, vdev));
}

static int vxb_register(struct vxb_device *vxb, u32 device_id, u32 vendor_id)
{
	struct vxb_virtio *virtio = kzalloc(sizeof(*virtio), GFP_KERNEL);
	unsigned long flags;
	int err;

	if (!virtio)
		return -ENOMEM;
	virtio->vxb = vxb;
	virtio->vdev.id.device = device_id;
	virtio->vdev.id.vendor = vendor_id;
	virtio->vdev.config = &vxb_config_ops;
	virtio->vdev.dev.parent = &vxb->xdev->dev;
	virtio->vdev.dev.release = vxb_virtio_release;

	spin_lock_irqsave(&vxb->event_lock, flags);
	vxb->virtio = virtio;
	spin_unlock_irqrestore(&vxb->event_lock, flags);

	err = register_virtio_device(&virtio->vdev);
	if (err) {
		spin_lock_irqsave(&vxb->event_lock, flags);
		vxb->virtio = NULL;
		spin_unlock_irqrestore(&vxb->event_lock, flags);
		put_device(&virtio->vdev.dev);
	}
	return err;
}

/**
 * vxb_gone - the backend has gone for good
 * @vxb: device
 *
 * Takes what it has finished, and makes everything else fail from now on.
 */
void vxb_gone(struct vxb_device *vxb)
{
	unsigned long flags;
	bool living;

	spin_lock_irqsave(&vxb->event_lock, flags);
	living = vxb->virtio;
	vxb_queues_event(vxb, true);
	spin_unlock_irqrestore(&vxb->event_lock, flags);
	if (living)
		vxb_break(vxb, "%s has closed", vxb->xdev->otherend);
	else
		WRITE_ONCE(vxb->broken, true);
}

/**
 * vxb_unregister - removes the virtio device, if there is one
 * @vxb: device
 */
void vxb_unregister(struct vxb_device *vxb)
{
	struct vxb_virtio *virtio = vxb->virtio;
	unsigned long flags;

	if (!virtio)
		return;
	get_device(&virtio->vdev.dev);
	unregister_virtio_device(&virtio->vdev);
	spin_lock_irqsave(&vxb->event_lock, flags);
	vxb->virtio = NULL;
	spin_unlock_irqrestore(&vxb->event_lock, flags);
	put_device(&virtio->vdev.dev);
}

/**
 * vxb_release - frees page, port and memory access, if there are any
 * @vxb: device without a virtio device
 */
void vxb_release(struct vxb_device *vxb)
{
	vxb_events_stop(vxb);
	timer_delete_sync(&vxb->watchdog);
	vxb_page_stop(vxb);
	if (vxb->memory) {
		vxb->memory->stop(vxb);
		WRITE_ONCE(vxb->memory, NULL);
	}
}

static int vxb_publish(struct vxb_device *vxb)
{
	struct xenbus_device *xdev = vxb->xdev;
	struct xenbus_transaction xbt;
	int err;

again:
	err = xenbus_transaction_start(&xbt);
	if (err)
		return err;
	err = xenbus_printf(xbt, xdev->nodename, "version", "%u", VXB_VERSION);
	if (!err)
		err = xenbus_write(xbt, xdev->nodename, "memory-access",
				   vxb->memory->name);
	if (!err)
		err = xenbus_printf(xbt, xdev->nodename, "device-page", "%u",
				    vxb->page_ref);
	if (!err)
		err = xenbus_printf(xbt, xdev->nodename, "event-channel", "%u",
				    vxb->channel.port);
	if (err) {
		xenbus_transaction_end(xbt, 1);
		return err;
	}
	err = xenbus_transaction_end(xbt, 0);
	if (err == -EAGAIN)
		goto again;
	return err;
}

/* The backend is ready: offers it what it needs */
static void vxb_prepare(struct vxb_device *vxb)
{
	struct xenbus_device *xdev = vxb->xdev;
	const struct vxb_memory *memory;
	unsigned int version;
	int err;

	vxb_release(vxb);
	version = xenbus_read_unsigned(xdev->otherend, "version", 0);
	if (version != VXB_VERSION) {
		xenbus_dev_fatal(xdev, -EOPNOTSUPP,
				 "%s/version is %u, this driver speaks version %u",
				 xdev->otherend, version, VXB_VERSION);
		return;
	}
	memory = vxb_memory_start(vxb);
	if (!memory)
		return;
	WRITE_ONCE(vxb->memory, memory);

	vxb->queue_channels = READ_ONCE(queue_event_channels) &&
		xenbus_read_unsigned(xdev->otherend, "queue-event-channels", 0);
	err = vxb_page_start(vxb);
	if (!err)
		err = vxb_events_start(vxb);
	if (!err)
		err = vxb_publish(vxb);
	if (err) {
		vxb_release(vxb);
		xenbus_dev_fatal(xdev, err, "setting up the device page");
		return;
	}
	xenbus_switch_state(xdev, XenbusStateInitialised);
}

/* Whether a device with a lower number is on its way to Connected */
static bool vxb_is_early(struct vxb_device *vxb)
{
	unsigned int own, number, state, count, i;
	bool early = false;
	char **names;
	char node[32];

	if (kstrtouint(kbasename(vxb->xdev->nodename), 10, &own))
		return false;
	names = xenbus_directory(XBT_NIL, "device", "virtio", &count);
	if (IS_ERR(names))
		return false;
	for (i = 0; i < count && !early; i++) {
		if (kstrtouint(names[i], 10, &number) || number >= own)
			continue;
		snprintf(node, sizeof(node), "device/virtio/%u", number);
		state = xenbus_read_unsigned(node, "state", 0);
		early = state && state < XenbusStateConnected && vxb_is_ours(node);
	}
	kfree(names);
	return early;
}

/*
 * Linux names disks and NICs in the order in which it finds them: vda is to be
 * vda at every start. A device that does not come does not keep the others.
 */
static void vxb_await_turn(struct vxb_device *vxb)
{
	unsigned long end = jiffies + VXB_TURN_LIMIT * HZ;

	while (vxb_is_early(vxb) && time_before(jiffies, end))
		msleep(20);
}

/* The backend has bound page and port: the virtio device can live */
static void vxb_connect(struct vxb_device *vxb)
{
	u32 device_id, vendor_id;
	int err;

	if (vxb_page_check(vxb, &device_id, &vendor_id))
		return;
	vxb_await_turn(vxb);
	if (READ_ONCE(vxb->backend_state) != XenbusStateConnected)
		return;
	err = vxb_register(vxb, device_id, vendor_id);
	if (err) {
		xenbus_dev_fatal(vxb->xdev, err, "registering the virtio device");
		return;
	}
	xenbus_switch_state(vxb->xdev, XenbusStateConnected);
}

/* XB-27: the backend wants the device back only if nobody uses it here */
static bool vxb_keep(struct vxb_device *vxb)
{
	struct xenbus_device *xdev = vxb->xdev;
	unsigned int users;

	if (!xenbus_read_unsigned(xdev->otherend, "unless-used", 0))
		return false;
	users = vxb_users(vxb);
	if (users)
		xenbus_dev_error(xdev, -EBUSY, "in use: open %u time%s", users,
				 users == 1 ? "" : "s");
	return users;
}

/**
 * vxb_work - does what the backend's state asks for
 * @work: the device's work
 */
void vxb_work(struct work_struct *work)
{
	struct vxb_device *vxb = container_of(work, struct vxb_device, work);
	struct xenbus_device *xdev = vxb->xdev;

	if (vxb->resumed)
		return;
	switch (READ_ONCE(vxb->backend_state)) {
	case XenbusStateInitWait:
		if (xdev->state == XenbusStateClosed)
			xenbus_switch_state(xdev, XenbusStateInitialising);
		if (xdev->state == XenbusStateInitialising)
			vxb_prepare(vxb);
		break;
	case XenbusStateConnected:
		if (xdev->state == XenbusStateInitialised)
			vxb_connect(vxb);
		break;
	case XenbusStateClosing:
		if (vxb_keep(vxb))
			break;
		vxb_unregister(vxb);
		xenbus_switch_state(xdev, XenbusStateClosed);
		break;
	case XenbusStateClosed:
	case XenbusStateUnknown:
		if (xdev->state == XenbusStateInitialising)
			break;
		vxb_gone(vxb);
		vxb_unregister(vxb);
		vxb_release(vxb);
		xenbus_switch_state(xdev, XenbusStateClosed);
		break;
	default:
		break;
	}
}
