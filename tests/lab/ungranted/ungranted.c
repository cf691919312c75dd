// SPDX-License-Identifier: GPL-2.0
/*
 * Asks an entropy device for random bytes, at addresses that it was granted and
 * at others, and prints what came of it. Built and loaded by
 * tests/lab/test_ungranted.py; the module virtio_xenbus, below it, is the one
 * that everybody has.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>

#define GRANT		BIT_ULL(63)
#define NOBODYS		(GRANT | 0x7000ULL << 12)	/* a reference not in use */
#define CANARY		0xa5
#define NO_ANSWER	(-1)

static void tell(const char *what, int used, const u8 *page)
{
	bool untouched = !memchr_inv(page, CANARY, PAGE_SIZE);

	pr_info("%s: used %d, %s\n", what, used, untouched ? "untouched" : "written");
}

/* Has the device write a page; its descriptor says another address than ours */
static int ask(struct virtqueue *vq, void *page, u64 address)
{
	const struct vring *vring = virtqueue_get_vring(vq);
	unsigned int length, tries;
	struct scatterlist sg;
	u16 head, idx;

	sg_init_one(&sg, page, PAGE_SIZE);
	if (virtqueue_add_inbuf(vq, &sg, 1, page, GFP_KERNEL))
		return -ENOSPC;
	idx = virtio16_to_cpu(vq->vdev, vring->avail->idx) - 1;
	head = virtio16_to_cpu(vq->vdev, vring->avail->ring[idx % vring->num]);
	if (address)
		vring->desc[head].addr = cpu_to_virtio64(vq->vdev, address);
	virtqueue_kick(vq);
	for (tries = 0; tries < 200; tries++) {
		if (virtqueue_get_buf(vq, &length))
			return length;
		msleep(20);
	}
	return NO_ANSWER;
}

static int ungranted_probe(struct virtio_device *vdev)
{
	struct device *dma = vdev->dev.parent;
	struct virtqueue *vq;
	dma_addr_t readonly;
	u8 *page, *canary;
	int used;

	vq = virtio_find_single_vq(vdev, NULL, "ungranted");
	if (IS_ERR(vq))
		return PTR_ERR(vq);
	page = (u8 *)__get_free_page(GFP_KERNEL);
	canary = (u8 *)__get_free_page(GFP_KERNEL);
	if (!page || !canary)
		return -ENOMEM;
	virtio_device_ready(vdev);

	memset(page, CANARY, PAGE_SIZE);
	used = ask(vq, page, 0);
	tell("granted", used, page);

	memset(page, CANARY, PAGE_SIZE);
	used = ask(vq, page, NOBODYS);
	tell("not granted", used, page);

	memset(canary, CANARY, PAGE_SIZE);
	readonly = dma_map_single(dma, canary, PAGE_SIZE, DMA_TO_DEVICE);
	used = ask(vq, page, readonly);
	dma_unmap_single(dma, readonly, PAGE_SIZE, DMA_TO_DEVICE);
	tell("granted for reading", used, canary);

	used = ask(vq, page, 0);
	tell("granted again", used, page);

	used = ask(vq, page, virt_to_phys(canary));
	tell("an address in memory", used, canary);
	pr_info("status %#x\n", vdev->config->get_status(vdev));

	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	free_page((unsigned long)canary);
	free_page((unsigned long)page);
	pr_info("done\n");
	return -ENODEV;
}

static void ungranted_remove(struct virtio_device *vdev)
{
}

static const struct virtio_device_id ungranted_ids[] = {
	{ VIRTIO_ID_RNG, VIRTIO_DEV_ANY_ID },
	{ }
};

static struct virtio_driver ungranted_driver = {
	.driver.name = KBUILD_MODNAME,
	.id_table = ungranted_ids,
	.probe = ungranted_probe,
	.remove = ungranted_remove,
};
module_virtio_driver(ungranted_driver);

MODULE_DESCRIPTION("Asks for data at addresses that were not granted");
MODULE_LICENSE("GPL");
