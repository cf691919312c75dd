// SPDX-License-Identifier: GPL-2.0
/*
 * Memory access: which way the backend reaches our memory, and the simple one
 * of the two, "foreign": the kernel's own DMA operations. "grant" is in
 * grant_dma.c.
 */
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/string.h>
#include <xen/xen.h>

#include "compat.h"
#include "virtio_xenbus.h"

static char *memory_access = "";
module_param(memory_access, charp, 0444);
MODULE_PARM_DESC(memory_access, "How the backend reaches this guest's memory: grant or foreign; empty: what the backend prefers (default)");

static const struct vxb_memory *const vxb_memories[] = {
	&vxb_memory_grant,
	&vxb_memory_foreign,
};

static const struct vxb_memory *vxb_memory_named(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vxb_memories); i++)
		if (!strcmp(vxb_memories[i]->name, name))
			return vxb_memories[i];
	return NULL;
}

/*
 * Starts the first mode of @list that we know, that is @wanted if that is set,
 * and that works here, [XB-13]. @why is left alone, or says why the last one
 * that was tried does not.
 */
static const struct vxb_memory *
vxb_memory_try(struct vxb_device *vxb, char *list, const char *wanted,
	       const char **why)
{
	const struct vxb_memory *memory;
	char *word;

	while ((word = strsep(&list, " "))) {
		if (*wanted && strcmp(word, wanted))
			continue;
		memory = vxb_memory_named(word);
		if (!memory)
			continue;
		if (!memory->start(vxb, why))
			return memory;
		dev_info(&vxb->xdev->dev, "not using memory access \"%s\": %s\n",
			 memory->name, *why);
	}
	return NULL;
}

/**
 * vxb_memory_start - chooses how the backend reaches our memory, and starts it
 * @vxb: device; its backend has said what it offers
 *
 * Return: the mode, or NULL with the reason in the log and in XenStore.
 */
const struct vxb_memory *vxb_memory_start(struct vxb_device *vxb)
{
	const char *wanted = *memory_access ? memory_access : "grant foreign";
	const char *why = "no common memory access";
	const struct vxb_memory *memory = NULL;
	char *offered, *list;

	offered = xenbus_read(XBT_NIL, vxb->xdev->otherend, "memory-access", NULL);
	if (IS_ERR(offered)) {
		xenbus_dev_fatal(vxb->xdev, PTR_ERR(offered),
				 "reading %s/memory-access", vxb->xdev->otherend);
		return NULL;
	}
	list = kstrdup(offered, GFP_KERNEL);
	if (list)
		memory = vxb_memory_try(vxb, list, memory_access, &why);
	kfree(list);
	if (!memory)
		xenbus_dev_fatal(vxb->xdev, -EOPNOTSUPP,
				 "%s: the backend offers \"%s\", this guest wants \"%s\"",
				 why, offered, wanted);
	kfree(offered);
	return memory;
}

static int vxb_foreign_start(struct vxb_device *vxb, const char **why)
{
	struct device *dev = &vxb->xdev->dev;
	bool reachable;
	dma_addr_t dma;
	void *probe;
	int err;

	err = dma_coerce_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (err) {
		*why = "the DMA mask cannot be set";
		return err;
	}
	probe = dma_alloc_coherent(dev, PAGE_SIZE, &dma, GFP_KERNEL);
	if (!probe) {
		*why = "no DMA memory";
		return -ENOMEM;
	}
	reachable = vxb_dma_is_machine(probe, dma);
	dma_free_coherent(dev, PAGE_SIZE, probe, dma);
	if (!reachable) {
		*why = "a PV guest needs iommu=soft on its kernel command line for it";
		return -EOPNOTSUPP;
	}
	return 0;
}

static void vxb_foreign_stop(struct vxb_device *vxb)
{
}

const struct vxb_memory vxb_memory_foreign = {
	.name = "foreign",
	.start = vxb_foreign_start,
	.stop = vxb_foreign_stop,
};
