// SPDX-License-Identifier: GPL-2.0
/*
 * struct virtio_config_ops: configuration space, status and features. Queues
 * are in queues.c.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "compat.h"
#include "virtio_xenbus.h"

static void vxb_get(struct virtio_device *vdev, unsigned int offset, void *buf,
		    unsigned int len)
{
	struct vxb_device *vxb = to_vxb(vdev);
	unsigned long flags;
	unsigned int have;

	memset(buf, 0, len);
	if (offset >= vxb->config_size)
		return;
	have = min(len, vxb->config_size - offset);
	spin_lock_irqsave(&vxb->config_lock, flags);
	memcpy(buf, (u8 *)vxb->config + offset, have);
	spin_unlock_irqrestore(&vxb->config_lock, flags);
}

static void vxb_set(struct virtio_device *vdev, unsigned int offset,
		    const void *buf, unsigned int len)
{
	struct vxb_device *vxb = to_vxb(vdev);
	struct vxb_command write = { .code = VXB_CONFIG_WRITE };
	int err;

	while (len) {
		write.offset = offset;
		write.value = min_t(unsigned int, len, VXB_DATA_MAX);
		write.data = buf;
		err = vxb_command(vxb, &write, NULL);
		if (err) {
			dev_warn(&vdev->dev,
				 "configuration write of %u bytes at %u refused: %d\n",
				 write.value, offset, err);
			return;
		}
		offset += write.value;
		buf += write.value;
		len -= write.value;
	}
}

static u32 vxb_generation(struct virtio_device *vdev)
{
	return READ_ONCE(to_vxb(vdev)->generation);
}

/*
 * Only bits that the driver has set count, so that a backend cannot lead the
 * virtio core into states that the driver never asked for.
 */
static u8 vxb_get_status(struct virtio_device *vdev)
{
	struct vxb_device *vxb = to_vxb(vdev);
	u8 mask = vxb->status;

	if (!mask || READ_ONCE(vxb->broken))
		return 0;
	mask |= VIRTIO_CONFIG_S_NEEDS_RESET;
	return le32_to_cpu(READ_ONCE(vxb->page->status)) & mask;
}

static int vxb_status_command(struct virtio_device *vdev, u8 status)
{
	struct vxb_device *vxb = to_vxb(vdev);
	struct vxb_command set = { .code = VXB_SET_STATUS, .value = status };
	int err;

	vxb->status = status;
	err = vxb_command(vxb, &set, NULL);
	if (err && err != -EIO)
		dev_warn(&vdev->dev, "status %#x refused: %d\n", status, err);
	return err;
}

static void vxb_set_status(struct virtio_device *vdev, u8 status)
{
	vxb_status_command(vdev, status);
}

/**
 * vxb_reset - resets the device
 * @vdev: virtio device
 *
 * Afterwards vxb->was_reset says whether the device has acknowledged it, and so
 * has let go of all queues.
 */
void vxb_reset(struct virtio_device *vdev)
{
	struct vxb_device *vxb = to_vxb(vdev);

	vxb->was_reset = !vxb_status_command(vdev, 0);
	vxb->features = 0;
	/* nothing of before the reset is still under way in the handler */
	vxb_events_synchronize(vxb);
}

static void vxb_synchronize_cbs(struct virtio_device *vdev)
{
	vxb_events_synchronize(to_vxb(vdev));
}

static u64 vxb_get_features(struct virtio_device *vdev)
{
	return le64_to_cpu(READ_ONCE(to_vxb(vdev)->page->device_features[0]));
}

static int vxb_finalize_features(struct virtio_device *vdev)
{
	const u64 needed = BIT_ULL(VIRTIO_F_VERSION_1) |
			   BIT_ULL(VIRTIO_F_ACCESS_PLATFORM);

	vring_transport_features(vdev);
	if ((vdev->features & needed) != needed) {
		dev_err(&vdev->dev,
			"the backend does not offer VERSION_1 and ACCESS_PLATFORM\n");
		return -EINVAL;
	}
	to_vxb(vdev)->features = vdev->features;
	return 0;
}

static const char *vxb_bus_name(struct virtio_device *vdev)
{
	return dev_name(&to_vxb(vdev)->xdev->dev);
}

const struct virtio_config_ops vxb_config_ops = {
	.get = vxb_get,
	.set = vxb_set,
	.generation = vxb_generation,
	.get_status = vxb_get_status,
	.set_status = vxb_set_status,
	.reset = vxb_reset,
	.find_vqs = vxb_find_vqs,
	.del_vqs = vxb_del_vqs,
	.synchronize_cbs = vxb_synchronize_cbs,
	.get_features = vxb_get_features,
	.finalize_features = vxb_finalize_features,
	.bus_name = vxb_bus_name,
};
