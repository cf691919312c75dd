// SPDX-License-Identifier: GPL-2.0
/*
 * virtio over XenBus: the xenbus driver. What it does when the backend changes
 * its state is in states.c.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <xen/platform_pci.h>
#include <xen/xen.h>
#include <xen/xenbus.h>

#include "virtio_xenbus.h"

struct workqueue_struct *vxb_workqueue;

static void vxb_otherend_changed(struct xenbus_device *xdev,
				 enum xenbus_state state)
{
	struct vxb_device *vxb = dev_get_drvdata(&xdev->dev);

	WRITE_ONCE(vxb->backend_state, state);
	queue_work(vxb_workqueue, &vxb->work);
}

/**
 * vxb_is_ours - is a device of type "virtio" for this transport?
 * @node: its directory in XenStore
 *
 * Return: whether it is.
 */
bool vxb_is_ours(const char *node)
{
	char *transport = xenbus_read(XBT_NIL, node, "transport", NULL);
	bool ours;

	if (IS_ERR(transport))
		return false;
	ours = !strcmp(transport, "xenbus");
	kfree(transport);
	return ours;
}

static int vxb_probe(struct xenbus_device *xdev, const struct xenbus_device_id *id)
{
	struct vxb_device *vxb;
	int err;

	if (!vxb_is_ours(xdev->nodename))
		return -ENODEV;
	vxb = kzalloc(sizeof(*vxb), GFP_KERNEL);
	if (!vxb)
		return -ENOMEM;

	vxb->xdev = xdev;
	INIT_WORK(&vxb->work, vxb_work);
	mutex_init(&vxb->command_lock);
	init_waitqueue_head(&vxb->answered);
	spin_lock_init(&vxb->config_lock);
	spin_lock_init(&vxb->event_lock);
	timer_setup(&vxb->watchdog, vxb_watchdog, 0);
	spin_lock_init(&vxb->bounce_lock);
	INIT_LIST_HEAD(&vxb->bounce_pages);
	spin_lock_init(&vxb->held_lock);
	INIT_LIST_HEAD(&vxb->held);
	INIT_DELAYED_WORK(&vxb->held_work, vxb_held_work);
	dev_set_drvdata(&xdev->dev, vxb);

	/* after a reload of this module the state is Closed */
	err = xenbus_switch_state(xdev, XenbusStateInitialising);
	if (err) {
		dev_set_drvdata(&xdev->dev, NULL);
		kfree(vxb);
	}
	return err;
}

static enum xenbus_state vxb_backend_state(struct vxb_device *vxb)
{
	return xenbus_read_unsigned(vxb->xdev->otherend, "state",
				    XenbusStateUnknown);
}

/* Waits until the backend is in a state, or past it, or the limit has passed */
static void vxb_wait_backend(struct vxb_device *vxb, enum xenbus_state wanted)
{
	unsigned long end = jiffies + VXB_CLOSE_LIMIT * HZ;
	enum xenbus_state state;

	do {
		state = vxb_backend_state(vxb);
		if (state == wanted || state == XenbusStateClosed ||
		    state == XenbusStateUnknown)
			return;
		msleep(20);
	} while (time_before(jiffies, end));
	dev_warn(&vxb->xdev->dev, "%s did not become %s within %u s\n",
		 vxb->xdev->otherend, xenbus_strstate(wanted), VXB_CLOSE_LIMIT);
}

static void vxb_remove(struct xenbus_device *xdev)
{
	struct vxb_device *vxb = dev_get_drvdata(&xdev->dev);
	enum xenbus_state state = vxb_backend_state(vxb);

	if (state == XenbusStateClosed || state == XenbusStateUnknown) {
		WRITE_ONCE(vxb->backend_state, state);
		vxb_gone(vxb);
	}
	cancel_work_sync(&vxb->work);
	vxb_unregister(vxb);
	if (xdev->state != XenbusStateClosed) {
		xenbus_switch_state(xdev, XenbusStateClosing);
		vxb_wait_backend(vxb, XenbusStateClosing);
	}
	vxb_release(vxb);
	xenbus_switch_state(xdev, XenbusStateClosed);
	vxb_wait_backend(vxb, XenbusStateClosed);
	dev_set_drvdata(&xdev->dev, NULL);
	kfree(vxb);
}

/* Restored or migrated: page, port and grants are gone; not supported yet */
static int vxb_resume(struct xenbus_device *xdev)
{
	struct vxb_device *vxb = dev_get_drvdata(&xdev->dev);

	vxb->resumed = true;
	vxb_break(vxb, "save, restore and migration are not supported by this version");
	return 0;
}

static const struct xenbus_device_id vxb_ids[] = {
	{ "virtio" },
	{ "" }
};

static struct xenbus_driver vxb_driver = {
	.name = "virtio_xenbus",
	.ids = vxb_ids,
	.allow_rebind = true,
	.not_essential = true,
	.probe = vxb_probe,
	.remove = vxb_remove,
	.resume = vxb_resume,
	.otherend_changed = vxb_otherend_changed,
	.driver.dev_groups = vxb_groups,
};

static int __init vxb_init(void)
{
	int err;

	if (!xen_domain() || !xen_has_pv_devices())
		return -ENODEV;
	err = vxb_grants_init();
	if (err)
		return err;
	vxb_workqueue = alloc_workqueue("virtio_xenbus", WQ_UNBOUND, 0);
	if (!vxb_workqueue) {
		err = -ENOMEM;
		goto free_grants;
	}
	err = xenbus_register_frontend(&vxb_driver);
	if (!err)
		return 0;

	destroy_workqueue(vxb_workqueue);
free_grants:
	vxb_grants_exit();
	return err;
}
module_init(vxb_init);

static void __exit vxb_exit(void)
{
	xenbus_unregister_driver(&vxb_driver);
	destroy_workqueue(vxb_workqueue);
	vxb_grants_exit();
}
module_exit(vxb_exit);

MODULE_DESCRIPTION("virtio over XenBus, for Xen PV, PVH and HVM guests");
MODULE_AUTHOR("The xenvirtio authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
MODULE_ALIAS("xen:virtio");
