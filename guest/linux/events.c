// SPDX-License-Identifier: GPL-2.0
/*
 * Event channels: the device's, and those of queues that have their own,
 * [XB-67].
 */
#include <linux/interrupt.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <xen/events.h>

#include "virtio_xenbus.h"

/* An answer, a change of configuration, a device that needs a reset */
static bool vxb_page_event(struct vxb_device *vxb)
{
	u32 ack = le32_to_cpu(READ_ONCE(vxb->page->ack_seq));
	u32 status = le32_to_cpu(READ_ONCE(vxb->page->status));
	bool needs_reset = status & VIRTIO_CONFIG_S_NEEDS_RESET;
	bool changed, news;

	vxb_config_refresh(vxb, false);
	changed = vxb->seen_generation != READ_ONCE(vxb->generation);
	vxb->seen_generation = READ_ONCE(vxb->generation);
	if (needs_reset && !vxb->seen_needs_reset) {
		dev_err(&vxb->xdev->dev,
			"device needs a reset; the backend's log says why\n");
		changed = true;
	}
	vxb->seen_needs_reset = needs_reset;
	if (changed && vxb->virtio)
		virtio_config_changed(&vxb->virtio->vdev);

	news = ack != vxb->seen_ack;
	vxb->seen_ack = ack;
	if (news)
		wake_up_all(&vxb->answered);
	return news || changed;
}

/*
 * Looks at a queue's used ring; returns whether there was anything. An event
 * whose buffers the driver has already found by polling is not spurious: the
 * used index has moved since the last one.
 */
static bool vxb_queue_event(struct vxb_queue *queue)
{
	struct virtqueue *vq = READ_ONCE(queue->vq);
	bool work = false;

	if (!vq)
		return false;
	if (queue->split) {
		u16 used = vxb_used_index(vq);

		work = used != READ_ONCE(queue->used);
		WRITE_ONCE(queue->used, used);
	}
	return work | (vring_interrupt(queue->channel.irq, vq) == IRQ_HANDLED);
}

/**
 * vxb_queues_event - looks at the used rings of a device's queues
 * @vxb: device; its event_lock is held
 * @all: also of those that have an event channel of their own
 *
 * Return: whether there was anything.
 */
bool vxb_queues_event(struct vxb_device *vxb, bool all)
{
	bool work = false;
	unsigned int i;

	for (i = 0; i < vxb->queue_count; i++)
		if (all || !vxb->queues[i].channel.irq)
			work |= vxb_queue_event(&vxb->queues[i]);
	return work;
}

static irqreturn_t vxb_event_done(struct vxb_device *vxb, int irq, bool work)
{
	if (!work)
		atomic64_inc(&vxb->events_spurious);
	xen_irq_lateeoi(irq, work ? 0 : XEN_EOI_FLAG_SPURIOUS);
	return IRQ_HANDLED;
}

static irqreturn_t vxb_interrupt(int irq, void *data)
{
	struct vxb_device *vxb = data;
	unsigned long flags;
	bool work;

	atomic64_inc(&vxb->events);
	spin_lock_irqsave(&vxb->event_lock, flags);
	work = vxb_page_event(vxb);
	work |= vxb_queues_event(vxb, false);
	spin_unlock_irqrestore(&vxb->event_lock, flags);
	return vxb_event_done(vxb, irq, work);
}

/* Takes no lock that queues share: one with its own channel is served by itself */
static irqreturn_t vxb_queue_interrupt(int irq, void *data)
{
	struct vxb_queue *queue = data;

	atomic64_inc(&queue->vxb->events);
	return vxb_event_done(queue->vxb, irq, vxb_queue_event(queue));
}

static int vxb_channel_start(struct vxb_device *vxb, struct vxb_channel *channel,
			     irq_handler_t handler, const char *name, void *data)
{
	evtchn_port_t port;
	int err;

	err = xenbus_alloc_evtchn(vxb->xdev, &port);
	if (err)
		return err;
	err = bind_evtchn_to_irqhandler_lateeoi(port, handler, 0, name, data);
	if (err < 0) {
		xenbus_free_evtchn(vxb->xdev, port);
		return err;
	}
	channel->port = port;
	channel->irq = err;
	return 0;
}

static void vxb_channel_stop(struct vxb_channel *channel, void *data)
{
	if (!channel->irq)
		return;
	unbind_from_irqhandler(channel->irq, data);
	channel->irq = 0;
	channel->port = 0;
}

/**
 * vxb_events_start - allocates the device's event channel
 * @vxb: device with a page
 *
 * Return: 0 or an error; then nothing is left behind.
 */
int vxb_events_start(struct vxb_device *vxb)
{
	vxb->seen_ack = 0;
	vxb->seen_generation = 0;
	vxb->seen_needs_reset = false;
	return vxb_channel_start(vxb, &vxb->channel, vxb_interrupt,
				 dev_name(&vxb->xdev->dev), vxb);
}

/**
 * vxb_events_stop - frees the device's event channel, if there is one
 * @vxb: device
 */
void vxb_events_stop(struct vxb_device *vxb)
{
	vxb_channel_stop(&vxb->channel, vxb);
}

/**
 * vxb_queue_channel_start - gives a queue an event channel of its own
 * @queue: queue that has a name, but no virtqueue as yet
 *
 * Return: 0 or an error; then nothing is left behind.
 */
int vxb_queue_channel_start(struct vxb_queue *queue)
{
	return vxb_channel_start(queue->vxb, &queue->channel,
				 vxb_queue_interrupt, queue->name, queue);
}

/**
 * vxb_queue_channel_stop - frees a queue's own event channel, if there is one
 * @queue: queue
 */
void vxb_queue_channel_stop(struct vxb_queue *queue)
{
	vxb_channel_stop(&queue->channel, queue);
}

/**
 * vxb_queue_notify - sends the backend an event for a queue
 * @queue: queue
 */
void vxb_queue_notify(struct vxb_queue *queue)
{
	atomic64_inc(&queue->vxb->kicks);
	notify_remote_via_irq(queue->channel.irq ?: queue->vxb->channel.irq);
}

/**
 * vxb_events_synchronize - waits until no handler of a device runs
 * @vxb: device
 */
void vxb_events_synchronize(struct vxb_device *vxb)
{
	unsigned int i;

	synchronize_irq(vxb->channel.irq);
	for (i = 0; i < vxb->queue_count; i++)
		if (vxb->queues[i].channel.irq)
			synchronize_irq(vxb->queues[i].channel.irq);
}
