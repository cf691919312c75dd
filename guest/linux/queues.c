// SPDX-License-Identifier: GPL-2.0
/*
 * Virtqueues: set-up, kicks, and how they end.
 */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "compat.h"
#include "virtio_xenbus.h"

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

static bool vxb_notify(struct virtqueue *vq)
{
	struct vxb_queue *queue = vq->priv;

	if (!vq->callback)
		vxb_watch(queue->vxb);
	vxb_queue_notify(queue);
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

/*
 * Where the backend can, and the user wants it, a queue has an event channel
 * of its own; where there is none left it shares the device's.
 */
static void vxb_setup_channel(struct vxb_queue *queue, const char *name)
{
	struct xenbus_device *xdev = queue->vxb->xdev;
	int err;

	if (!queue->vxb->queue_channels)
		return;
	snprintf(queue->name, sizeof(queue->name), "%s-%s", dev_name(&xdev->dev),
		 name);
	err = vxb_queue_channel_start(queue);
	if (err)
		dev_warn(&xdev->dev, "%s has no event channel of its own: %d\n",
			 name, err);
}

static int vxb_setup_vq(struct vxb_queue *queue, struct virtio_device *vdev,
			unsigned int index, const char *name,
			vq_callback_t *callback, bool ctx)
{
	struct vxb_command enable = { .code = VXB_QUEUE_ENABLE, .queue = index };
	struct vxb_device *vxb = queue->vxb;
	struct virtqueue *vq;
	unsigned long flags;
	int size, err;

	size = vxb_queue_size(vdev, index);
	if (size < 0)
		return size;

	vq = vring_create_virtqueue(index, size, SMP_CACHE_BYTES, vdev, true,
				    true, ctx, vxb_notify, callback, name);
	if (!vq)
		return -ENOMEM;
	vq->priv = queue;
	vxb_setup_channel(queue, name);

	enable.value = virtqueue_get_vring_size(vq);
	enable.desc = virtqueue_get_desc_addr(vq);
	enable.driver = virtqueue_get_avail_addr(vq);
	enable.device = virtqueue_get_used_addr(vq);
	enable.port = queue->channel.port;
	err = vxb_command(vxb, &enable, NULL);
	if (err) {
		dev_err(&vdev->dev, "queue %u of size %u refused: %d\n",
			index, enable.value, err);
		vxb_queue_channel_stop(queue);
		/* without an answer it may have been executed */
		vxb_free_vq(vq, err != -EIO);
		return err;
	}

	spin_lock_irqsave(&vxb->event_lock, flags);
	queue->split = !virtio_has_feature(vdev, VIRTIO_F_RING_PACKED);
	WRITE_ONCE(queue->vq, vq);
	if (READ_ONCE(vxb->broken)) /* vxb_break() did not see it */
		__virtqueue_break(vq);
	spin_unlock_irqrestore(&vxb->event_lock, flags);
	return 0;
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
		vxb_queue_channel_stop(&queues[i]);
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
	unsigned long flags;
	int err;

	for (i = 0; i < nvqs; i++)
		if (VXB_VQ_NAME(i))
			named++;
	if (named > vxb->num_queues)
		return -ENOENT;
	queues = kcalloc(nvqs, sizeof(*queues), GFP_KERNEL);
	if (!queues)
		return -ENOMEM;
	for (i = 0; i < nvqs; i++)
		queues[i].vxb = vxb;
	spin_lock_irqsave(&vxb->event_lock, flags);
	vxb->queues = queues;
	vxb->queue_count = nvqs;
	spin_unlock_irqrestore(&vxb->event_lock, flags);

	for (i = 0; i < nvqs; i++) {
		vqs[i] = NULL;
		if (!VXB_VQ_NAME(i))
			continue;
		err = vxb_setup_vq(&queues[i], vdev, index++, VXB_VQ_NAME(i),
				   VXB_VQ_CALLBACK(i), VXB_VQ_CTX(i));
		if (err) {
			vxb_del_vqs(vdev);
			return err;
		}
		vqs[i] = queues[i].vq;
	}
	return 0;
}
