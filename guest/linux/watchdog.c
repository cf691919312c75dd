// SPDX-License-Identifier: GPL-2.0
/*
 * The watchdog. A queue without a callback is polled by its driver, which may
 * hold locks and a processor while it does (virtio_net's control queue, with the
 * RTNL). So the wait for it is bounded, as the one for a command is, [XB-66].
 */
#include <linux/timer.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "virtio_xenbus.h"

/**
 * vxb_used_index - how many buffers a device has given back, modulo 2^16
 * @vq: split virtqueue
 *
 * Return: the used ring's index.
 */
u16 vxb_used_index(struct virtqueue *vq)
{
	const struct vring *vring = virtqueue_get_vring(vq);

	return virtio16_to_cpu(vq->vdev, READ_ONCE(vring->used->idx));
}

static u16 vxb_avail_index(struct virtqueue *vq)
{
	const struct vring *vring = virtqueue_get_vring(vq);

	return virtio16_to_cpu(vq->vdev, READ_ONCE(vring->avail->idx));
}

/**
 * vxb_watch - has the watchdog look at a device's polled queues
 * @vxb: device
 */
void vxb_watch(struct vxb_device *vxb)
{
	if (!timer_pending(&vxb->watchdog))
		mod_timer(&vxb->watchdog, jiffies + vxb_command_jiffies());
}

/**
 * vxb_watchdog - gives a device up whose polled queue has stood still
 * @timer: the device's timer
 */
void vxb_watchdog(struct timer_list *timer)
{
	struct vxb_device *vxb = container_of(timer, struct vxb_device, watchdog);
	bool stuck = false, busy = false;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&vxb->event_lock, flags);
	for (i = 0; i < vxb->queue_count; i++) {
		struct vxb_queue *queue = &vxb->queues[i];
		bool was_busy = queue->busy;
		u16 used;

		if (!queue->vq || !queue->split || queue->vq->callback)
			continue;
		used = vxb_used_index(queue->vq);
		queue->busy = used != vxb_avail_index(queue->vq);
		busy |= queue->busy;
		stuck |= queue->busy && was_busy && used == queue->watched;
		queue->watched = used;
	}
	spin_unlock_irqrestore(&vxb->event_lock, flags);

	if (stuck)
		vxb_break(vxb, "a queue that its driver polls is not served");
	else if (busy)
		mod_timer(timer, jiffies + vxb_command_jiffies());
}
