// SPDX-License-Identifier: GPL-2.0
/*
 * Virtqueues: set-up, kicks, used buffer notifications, and the watchdog for
 * queues that their driver polls.
 */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <xen/events.h>

#include "compat.h"
#include "virtio_xenbus.h"

static u16 vxb_used_index(struct virtqueue *vq)
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
 * vxb_queues_break - makes every queue of a device fail
 * @vxb: device
 */
void vxb_queues_break(struct vxb_device *vxb)
{
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&vxb->event_lock, flags);
	for (i = 0; i < vxb->queue_count; i++)
		if (vxb->queues[i].vq)
			__virtqueue_break(vxb->queues[i].vq);
	spin_unlock_irqrestore(&vxb->event_lock, flags);
}

/**
 * vxb_queues_event - looks at every queue's used ring
 * @vxb: device; its event_lock is held
 *
 * An event whose buffers the driver has already found by polling is not
 * spurious: the used index has moved since the last one.
 *
 * Return: whether there was anything.
 */
bool vxb_queues_event(struct vxb_device *vxb)
{
	bool work = false;
	unsigned int i;

	for (i = 0; i < vxb->queue_count; i++) {
		struct vxb_queue *queue = &vxb->queues[i];

		if (!queue->vq)
			continue;
		if (queue->split) {
			u16 used = vxb_used_index(queue->vq);

			work |= used != queue->used;
			queue->used = used;
		}
		work |= vring_interrupt(vxb->irq, queue->vq) == IRQ_HANDLED;
	}
	return work;
}

/*
 * A queue without a callback is polled by its driver, which may hold locks and
 * a processor while it does (virtio_net's control queue, with the RTNL). So the
 * wait for it is bounded, as the one for a command is.
 */
static void vxb_watch(struct vxb_device *vxb)
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

static bool vxb_notify(struct virtqueue *vq)
{
	struct vxb_device *vxb = to_vxb(vq->vdev);

	atomic64_inc(&vxb->kicks);
	if (!vq->callback)
		vxb_watch(vxb);
	notify_remote_via_irq(vxb->irq);
	return true;
}

static int vxb_queue_size(struct virtio_device *vdev, unsigned int index)
{
	struct vxb_command query = { .code = VXB_QUEUE_QUERY, .queue = index };
	u64 size;
	int err;

	err = vxb_command(to_vxb(vdev), &query, &size);
	if (err)
		return err;
	if (!size)
		return -ENOENT;
	if (size > VXB_QUEUE_SIZE_MAX ||
	    (!is_power_of_2(size) &&
	     !virtio_has_feature(vdev, VIRTIO_F_RING_PACKED))) {
		dev_err(&vdev->dev, "queue %u: size %llu is not allowed\n",
			index, size);
		return -EPROTO;
	}
	return size;
}

/*
 * Frees a queue. Rings that a backend may still have mapped are never used for
 * anything else: "grant" sees to that by itself; where it does not, they stay
 * allocated for good. A backend in Closed has let go, [XB-23].
 */
static void vxb_free_vq(struct virtqueue *vq, bool let_go)
{
	struct virtio_device *vdev = vq->vdev;
	struct vxb_device *vxb = to_vxb(vdev);

	if (let_go || vxb->memory->keeps ||
	    READ_ONCE(vxb->backend_state) == XenbusStateClosed) {
		vring_del_virtqueue(vq);
		return;
	}
	if (!vxb->rings_left++)
		dev_warn(&vxb->xdev->dev,
			 "the backend has not let go of its rings; their memory is not used again\n");
	spin_lock(&vdev->vqs_list_lock);
	list_del(&vq->list);
	spin_unlock(&vdev->vqs_list_lock);
}

static struct virtqueue *vxb_setup_vq(struct virtio_device *vdev,
				      unsigned int index, const char *name,
				      vq_callback_t *callback, bool ctx)
{
	struct vxb_command enable = { .code = VXB_QUEUE_ENABLE, .queue = index };
	struct virtqueue *vq;
	int size, err;

	size = vxb_queue_size(vdev, index);
	if (size < 0)
		return ERR_PTR(size);

	vq = vring_create_virtqueue(index, size, SMP_CACHE_BYTES, vdev, true,
				    true, ctx, vxb_notify, callback, name);
	if (!vq)
		return ERR_PTR(-ENOMEM);

	enable.value = virtqueue_get_vring_size(vq);
	enable.desc = virtqueue_get_desc_addr(vq);
	enable.driver = virtqueue_get_avail_addr(vq);
	enable.device = virtqueue_get_used_addr(vq);
	err = vxb_command(to_vxb(vdev), &enable, NULL);
	if (err) {
		dev_err(&vdev->dev, "queue %u of size %u refused: %d\n",
			index, enable.value, err);
		/* without an answer it may have been executed */
		vxb_free_vq(vq, err != -EIO);
		return ERR_PTR(err);
	}
	return vq;
}

/**
 * vxb_del_vqs - frees every queue of a virtio device
 * @vdev: virtio device
 *
 * After a reset the backend has let go of them. Without one (a driver whose
 * probe failed) it is told to: by a reset once the device is live, when
 * QUEUE_RESET is not allowed any more, [XB-54].
 */
void vxb_del_vqs(struct virtio_device *vdev)
{
	struct vxb_device *vxb = to_vxb(vdev);
	struct vxb_command reset = { .code = VXB_QUEUE_RESET };
	struct vxb_queue *queues;
	unsigned int count, i;
	unsigned long flags;
	bool let_go;

	if (vxb->status & VIRTIO_CONFIG_S_DRIVER_OK)
		vxb_reset(vdev);

	spin_lock_irqsave(&vxb->event_lock, flags);
	queues = vxb->queues;
	count = vxb->queue_count;
	vxb->queues = NULL;
	vxb->queue_count = 0;
	spin_unlock_irqrestore(&vxb->event_lock, flags);

	for (i = 0; i < count; i++) {
		if (!queues[i].vq)
			continue;
		let_go = vxb->was_reset;
		if (vxb->status) {
			reset.queue = queues[i].vq->index;
			let_go = !vxb_command(vxb, &reset, NULL);
		}
		vxb_free_vq(queues[i].vq, let_go);
	}
	kfree(queues);
}

/*
 * Sets the queues up that a driver names. The arguments differ between kernels,
 * see compat.h. Returns 0 or an error; then no queue is left.
 */
int vxb_find_vqs(VXB_FIND_VQS_ARGS)
{
	struct vxb_device *vxb = to_vxb(vdev);
	unsigned int i, index = 0, named = 0;
	struct vxb_queue *queues;
	struct virtqueue *vq;
	unsigned long flags;

	for (i = 0; i < nvqs; i++)
		if (VXB_VQ_NAME(i))
			named++;
	if (named > vxb->num_queues)
		return -ENOENT;
	queues = kcalloc(nvqs, sizeof(*queues), GFP_KERNEL);
	if (!queues)
		return -ENOMEM;
	spin_lock_irqsave(&vxb->event_lock, flags);
	vxb->queues = queues;
	vxb->queue_count = nvqs;
	spin_unlock_irqrestore(&vxb->event_lock, flags);

	for (i = 0; i < nvqs; i++) {
		if (!VXB_VQ_NAME(i)) {
			vqs[i] = NULL;
			continue;
		}
		vq = vxb_setup_vq(vdev, index++, VXB_VQ_NAME(i),
				  VXB_VQ_CALLBACK(i), VXB_VQ_CTX(i));
		if (IS_ERR(vq)) {
			vxb_del_vqs(vdev);
			return PTR_ERR(vq);
		}
		vqs[i] = vq;
		spin_lock_irqsave(&vxb->event_lock, flags);
		queues[i].split = !virtio_has_feature(vdev, VIRTIO_F_RING_PACKED);
		queues[i].vq = vq;
		if (READ_ONCE(vxb->broken)) /* vxb_break() did not see it */
			__virtqueue_break(vq);
		spin_unlock_irqrestore(&vxb->event_lock, flags);
	}
	return 0;
}
