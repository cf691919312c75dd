/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Everything that differs between kernel versions. The rest of the module is
 * written for the newest of them.
 */
#ifndef VIRTIO_XENBUS_COMPAT_H
#define VIRTIO_XENBUS_COMPAT_H

#include <linux/dma-map-ops.h>
#include <linux/version.h>
#include <linux/virtio_config.h>
#include <xen/xen.h>
#ifdef CONFIG_XEN_PV
#include <asm/xen/page.h>
#endif

/* find_vqs() took three arrays before 6.11, one of struct virtqueue_info since */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)

#define VXB_FIND_VQS_ARGS						\
	struct virtio_device *vdev, unsigned int nvqs,			\
	struct virtqueue *vqs[], vq_callback_t *callbacks[],		\
	const char * const names[], const bool *ctx,			\
	struct irq_affinity *desc
#define VXB_VQ_NAME(i)		(names[i])
#define VXB_VQ_CALLBACK(i)	(callbacks[i])
#define VXB_VQ_CTX(i)		(ctx ? ctx[i] : false)

#else

#define VXB_FIND_VQS_ARGS						\
	struct virtio_device *vdev, unsigned int nvqs,			\
	struct virtqueue *vqs[], struct virtqueue_info vqs_info[],	\
	struct irq_affinity *desc
#define VXB_VQ_NAME(i)		(vqs_info[i].name)
#define VXB_VQ_CALLBACK(i)	(vqs_info[i].callback)
#define VXB_VQ_CTX(i)		(vqs_info[i].ctx)

#endif

/* queues.c */
int vxb_find_vqs(VXB_FIND_VQS_ARGS);

/* grant_dma.c */
dma_addr_t vxb_map(struct device *dev, phys_addr_t phys, size_t size,
		   enum dma_data_direction dir, unsigned long attrs);
void vxb_unmap(struct device *dev, dma_addr_t address, size_t size,
	       enum dma_data_direction dir, unsigned long attrs);

/* map_page() became map_phys() in 6.18 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)

static inline dma_addr_t vxb_map_page(struct device *dev, struct page *page,
				      unsigned long offset, size_t size,
				      enum dma_data_direction dir,
				      unsigned long attrs)
{
	return vxb_map(dev, page_to_phys(page) + offset, size, dir, attrs);
}

#define VXB_MAP_OPS	.map_page = vxb_map_page, .unmap_page = vxb_unmap

#else

#define VXB_MAP_OPS	.map_phys = vxb_map, .unmap_phys = vxb_unmap

#endif

/**
 * vxb_dma_is_machine - is a DMA address one that another domain can map?
 * @vaddr: memory from dma_alloc_coherent()
 * @dma: its DMA address
 *
 * In a PV guest it must be the machine address, which only swiotlb-xen knows.
 * Everywhere else guest frames are what a backend maps.
 */
static inline bool vxb_dma_is_machine(void *vaddr, dma_addr_t dma)
{
#ifdef CONFIG_XEN_PV
	if (xen_pv_domain())
		return arbitrary_virt_to_machine(vaddr).maddr == dma;
#endif
	return true;
}

#endif
