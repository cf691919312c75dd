// SPDX-License-Identifier: GPL-2.0
/*
 * Memory access "grant": DMA operations whose addresses are grant references.
 * The backend can reach what a request needs, for as long as it needs it, and
 * nothing else: what shares a page with a buffer is kept from it by bouncing.
 */
#include <linux/dma-map-ops.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/scatterlist.h>

#include "compat.h"
#include "virtio_xenbus.h"

#define VXB_GRANT_ADDRESS	BIT_ULL(63)

static bool trusted;
module_param(trusted, bool, 0444);
MODULE_PARM_DESC(trusted, "Trust the backend with what shares a page with a buffer, instead of copying such buffers (default N)");

static struct vxb_device *vxb_of(struct device *dev)
{
	return dev_get_drvdata(dev);
}

static dma_addr_t vxb_address(grant_ref_t ref, unsigned int offset)
{
	return VXB_GRANT_ADDRESS | ((u64)ref << XEN_PAGE_SHIFT) | offset;
}

static grant_ref_t vxb_ref(dma_addr_t address)
{
	return (address & ~VXB_GRANT_ADDRESS) >> XEN_PAGE_SHIFT;
}

/*
 * A page that the buffer does not fill holds someone else's data too; one of
 * the slab allocator can be reused while the backend still has it.
 */
static bool vxb_must_bounce(struct vxb_device *vxb, struct page *page,
			    unsigned int length)
{
	return !vxb->trusted &&
	       (length != PAGE_SIZE || folio_test_slab(page_folio(page)));
}

static void vxb_unmap_refs(struct vxb_device *vxb, grant_ref_t ref,
			   unsigned int count)
{
	struct page *page, *origin;

	for (; count--; ref++) {
		if (!vxb_grant_find(ref, &page, &origin))
			continue;
		if (vxb_grant_end(vxb, ref, origin) && origin)
			vxb_bounce_put(vxb, page);
	}
}

/**
 * vxb_map - grants a buffer
 * @dev: xenbus device
 * @phys: where the buffer begins; it is contiguous for us
 * @size: its length in bytes
 * @dir: who writes it; what only the backend reads is granted read-only
 * @attrs: DMA_ATTR_SKIP_CPU_SYNC is honoured
 *
 * Its pages get consecutive references. A page that it does not fill is
 * replaced by a bounce page, unless the backend is trusted.
 *
 * Return: the DMA address or DMA_MAPPING_ERROR.
 */
dma_addr_t vxb_map(struct device *dev, phys_addr_t phys, size_t size,
		   enum dma_data_direction dir, unsigned long attrs)
{
	unsigned int offset = offset_in_page(phys);
	unsigned int count = PFN_UP(offset + size);
	unsigned int i, from = offset, length;
	struct vxb_device *vxb = vxb_of(dev);
	size_t left = size;
	grant_ref_t first;

	if (dir == DMA_NONE || !size || vxb_grants_reserve(vxb, count, &first))
		return DMA_MAPPING_ERROR;

	for (i = 0; i < count; i++, from = 0, left -= length) {
		struct page *page = pfn_to_page(PHYS_PFN(phys) + i);
		struct page *bounce = NULL;

		length = min_t(size_t, PAGE_SIZE - from, left);
		if (vxb_must_bounce(vxb, page, length)) {
			bounce = vxb_bounce_get(vxb);
			if (!bounce)
				goto undo;
			/* zeroes are "no error" in a status that nobody wrote */
			if (dir == DMA_FROM_DEVICE || (attrs & DMA_ATTR_SKIP_CPU_SYNC))
				memset(page_address(bounce) + from, 0xff, length);
			else
				memcpy(page_address(bounce) + from,
				       page_address(page) + from, length);
		}
		vxb_grant(vxb, first + i, bounce ?: page, bounce ? page : NULL,
			  dir == DMA_TO_DEVICE);
	}
	return vxb_address(first, offset);

undo:
	vxb_unmap_refs(vxb, first, i);
	vxb_grants_release(vxb, first + i, count - i);
	return DMA_MAPPING_ERROR;
}

/* Copies between bounce pages and the pages that they stand in for */
static void vxb_sync(dma_addr_t address, size_t size, bool to_device)
{
	unsigned int from = offset_in_page(address), length;
	grant_ref_t ref = vxb_ref(address);
	struct page *page, *origin;
	void *bounce, *buffer;

	for (; size; size -= length, from = 0, ref++) {
		length = min_t(size_t, PAGE_SIZE - from, size);
		if (!vxb_grant_find(ref, &page, &origin) || !origin)
			continue;
		bounce = page_address(page) + from;
		buffer = page_address(origin) + from;
		if (to_device)
			memcpy(bounce, buffer, length);
		else
			memcpy(buffer, bounce, length);
	}
}

static void vxb_sync_for_cpu(struct device *dev, dma_addr_t address, size_t size,
			     enum dma_data_direction dir)
{
	if (dir != DMA_TO_DEVICE)
		vxb_sync(address, size, false);
}

static void vxb_sync_for_device(struct device *dev, dma_addr_t address,
				size_t size, enum dma_data_direction dir)
{
	if (dir != DMA_FROM_DEVICE)
		vxb_sync(address, size, true);
}

/**
 * vxb_unmap - takes a buffer's grants back
 * @dev: xenbus device
 * @address: from vxb_map()
 * @size: as there
 * @dir: as there
 * @attrs: DMA_ATTR_SKIP_CPU_SYNC: bounce pages are not copied back
 */
void vxb_unmap(struct device *dev, dma_addr_t address, size_t size,
	       enum dma_data_direction dir, unsigned long attrs)
{
	if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		vxb_sync_for_cpu(dev, address, size, dir);
	vxb_unmap_refs(vxb_of(dev), vxb_ref(address),
		       PFN_UP(offset_in_page(address) + size));
}

static void vxb_unmap_sg(struct device *dev, struct scatterlist *sgl, int nents,
			 enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vxb_unmap(dev, sg_dma_address(sg), sg_dma_len(sg), dir, attrs);
}

static int vxb_map_sg(struct device *dev, struct scatterlist *sgl, int nents,
		      enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		sg->dma_address = vxb_map(dev, sg_phys(sg), sg->length, dir, attrs);
		if (sg->dma_address == DMA_MAPPING_ERROR) {
			vxb_unmap_sg(dev, sgl, i, dir,
				     attrs | DMA_ATTR_SKIP_CPU_SYNC);
			return -EIO;
		}
		sg_dma_len(sg) = sg->length;
	}
	return nents;
}

static void vxb_sync_sg_for_cpu(struct device *dev, struct scatterlist *sgl,
				int nents, enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vxb_sync_for_cpu(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void vxb_sync_sg_for_device(struct device *dev, struct scatterlist *sgl,
				   int nents, enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(sgl, sg, nents, i)
		vxb_sync_for_device(dev, sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void *vxb_alloc(struct device *dev, size_t size, dma_addr_t *address,
		       gfp_t gfp, unsigned long attrs)
{
	unsigned int count = PFN_UP(size), i;
	struct vxb_device *vxb = vxb_of(dev);
	grant_ref_t first;
	void *vaddr;

	vaddr = alloc_pages_exact(count * PAGE_SIZE,
				  (gfp & ~__GFP_COMP) | __GFP_ZERO);
	if (!vaddr)
		return NULL;
	if (vxb_grants_reserve(vxb, count, &first)) {
		free_pages_exact(vaddr, count * PAGE_SIZE);
		return NULL;
	}
	for (i = 0; i < count; i++)
		vxb_grant(vxb, first + i, virt_to_page(vaddr + i * PAGE_SIZE),
			  NULL, false);
	*address = vxb_address(first, 0);
	return vaddr;
}

static void vxb_free(struct device *dev, size_t size, void *vaddr,
		     dma_addr_t address, unsigned long attrs)
{
	struct vxb_device *vxb = vxb_of(dev);
	unsigned int count = PFN_UP(size), i;
	grant_ref_t first = vxb_ref(address);
	struct page *page, *origin;

	/* alloc_pages_exact() gave single pages, each is freed by itself */
	for (i = 0; i < count; i++)
		if (vxb_grant_find(first + i, &page, &origin) &&
		    vxb_grant_end(vxb, first + i, true))
			__free_page(page);
}

static int vxb_dma_supported(struct device *dev, u64 mask)
{
	return mask == DMA_BIT_MASK(64);
}

static u64 vxb_required_mask(struct device *dev)
{
	return DMA_BIT_MASK(64);
}

static size_t vxb_max_mapping_size(struct device *dev)
{
	return VXB_MAPPING_MAX;
}

static const struct dma_map_ops vxb_dma_ops = {
	.alloc = vxb_alloc,
	.free = vxb_free,
	VXB_MAP_OPS,
	.map_sg = vxb_map_sg,
	.unmap_sg = vxb_unmap_sg,
	.sync_single_for_cpu = vxb_sync_for_cpu,
	.sync_single_for_device = vxb_sync_for_device,
	.sync_sg_for_cpu = vxb_sync_sg_for_cpu,
	.sync_sg_for_device = vxb_sync_sg_for_device,
	.dma_supported = vxb_dma_supported,
	.get_required_mask = vxb_required_mask,
	.max_mapping_size = vxb_max_mapping_size,
};

static int vxb_grant_start(struct vxb_device *vxb, const char **why)
{
	struct device *dev = &vxb->xdev->dev;
	int err;

	vxb->trusted = trusted;
	set_dma_ops(dev, &vxb_dma_ops);
	err = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (err) {
		set_dma_ops(dev, NULL);
		*why = "the DMA mask cannot be set";
	}
	return err;
}

static void vxb_grant_stop(struct vxb_device *vxb)
{
	set_dma_ops(&vxb->xdev->dev, NULL);
	vxb_held_give_up(vxb);
	vxb_bounce_free(vxb);
}

const struct vxb_memory vxb_memory_grant = {
	.name = "grant",
	.keeps = true,
	.start = vxb_grant_start,
	.stop = vxb_grant_stop,
};
