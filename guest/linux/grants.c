// SPDX-License-Identifier: GPL-2.0
/*
 * Grants: the table of what is granted, pages that a backend keeps too long,
 * and pages for bouncing.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <xen/grant_table.h>
#include <xen/page.h>

#include "virtio_xenbus.h"

/**
 * struct vxb_granted - what stands behind a grant reference of ours
 * @page: the granted page
 * @origin: the page that it stands in for, if it is a bounce page
 */
struct vxb_granted {
	struct page *page;
	struct page *origin;
};

/* a grant whose page the backend still uses after we are done with it */
struct vxb_held {
	struct list_head list;
	grant_ref_t ref;
	struct page *page;
	unsigned long since;
};

/* grant references are small numbers, so a plain table finds a page at once */
static struct vxb_granted *vxb_table;
static unsigned int vxb_table_size;

/**
 * vxb_grants_init - allocates the table of granted pages
 *
 * Return: 0 or -ENOMEM.
 */
int vxb_grants_init(void)
{
	BUILD_BUG_ON(PAGE_SIZE != XEN_PAGE_SIZE);

	vxb_table_size = gnttab_max_grant_frames() *
			 (XEN_PAGE_SIZE / sizeof(struct grant_entry_v1));
	vxb_table = kvcalloc(vxb_table_size, sizeof(*vxb_table), GFP_KERNEL);
	return vxb_table ? 0 : -ENOMEM;
}

/**
 * vxb_grants_exit - frees the table
 */
void vxb_grants_exit(void)
{
	kvfree(vxb_table);
}

/**
 * vxb_grants_reserve - takes consecutive grant references
 * @vxb: device
 * @count: how many
 * @first: the first of them
 *
 * Return: 0 or -ENOSPC.
 */
int vxb_grants_reserve(struct vxb_device *vxb, unsigned int count,
		       grant_ref_t *first)
{
	if (gnttab_alloc_grant_reference_seq(count, first) < 0)
		return -ENOSPC;
	if (*first + count > vxb_table_size) {
		gnttab_free_grant_reference_seq(*first, count);
		return -ENOSPC;
	}
	atomic64_add(count, &vxb->grants_in_use);
	return 0;
}

/**
 * vxb_grants_release - gives references back that no page was granted by
 * @vxb: device
 * @first: the first of them
 * @count: how many
 */
void vxb_grants_release(struct vxb_device *vxb, grant_ref_t first,
			unsigned int count)
{
	atomic64_sub(count, &vxb->grants_in_use);
	while (count--)
		gnttab_free_grant_reference(first++);
}

/**
 * vxb_grant - grants a page to the backend
 * @vxb: device
 * @ref: reserved reference
 * @page: page
 * @origin: page that it stands in for, or NULL
 * @readonly: the backend may not write it
 */
void vxb_grant(struct vxb_device *vxb, grant_ref_t ref, struct page *page,
	       struct page *origin, bool readonly)
{
	vxb_table[ref].page = page;
	vxb_table[ref].origin = origin;
	gnttab_grant_foreign_access_ref(ref, vxb->xdev->otherend_id,
					xen_page_to_gfn(page), readonly);
	atomic64_inc(&vxb->grants_made);
}

/**
 * vxb_grant_find - finds the pages of a grant
 * @ref: reference, from a DMA address
 * @page: the granted page
 * @origin: the page that it stands in for, or NULL
 *
 * Return: whether there is such a grant.
 */
bool vxb_grant_find(grant_ref_t ref, struct page **page, struct page **origin)
{
	if (WARN_ON_ONCE(ref >= vxb_table_size || !vxb_table[ref].page))
		return false;
	*page = vxb_table[ref].page;
	*origin = vxb_table[ref].origin;
	return true;
}

static void vxb_hold(struct vxb_device *vxb, grant_ref_t ref, struct page *page)
{
	struct vxb_held *held = kmalloc(sizeof(*held), GFP_ATOMIC);
	unsigned long flags;

	if (!atomic64_read(&vxb->grants_held))
		dev_warn_ratelimited(&vxb->xdev->dev,
				     "the backend still uses grant %u that we are done with; its page is kept until it lets go\n",
				     ref);
	if (!held) {
		/* the kernel's own list; or it leaks, which is safe as well */
		gnttab_end_foreign_access(ref, page);
		return;
	}
	held->ref = ref;
	held->page = page;
	held->since = jiffies;
	atomic64_inc(&vxb->grants_held);
	spin_lock_irqsave(&vxb->held_lock, flags);
	list_add_tail(&held->list, &vxb->held);
	spin_unlock_irqrestore(&vxb->held_lock, flags);
	queue_delayed_work(vxb_workqueue, &vxb->held_work, HZ);
}

/**
 * vxb_grant_end - takes a grant back
 * @vxb: device
 * @ref: reference
 * @own: the page is ours, not one that we were asked to map
 *
 * A page that the backend still uses is kept: ours as it is, another's by a
 * reference of our own, so that it is not freed meanwhile.
 *
 * Return: whether the page is free of the backend; if not, and it is ours, it
 * now belongs to the list of those waited for.
 */
bool vxb_grant_end(struct vxb_device *vxb, grant_ref_t ref, bool own)
{
	struct page *page = vxb_table[ref].page;

	vxb_table[ref].page = NULL;
	vxb_table[ref].origin = NULL;
	atomic64_dec(&vxb->grants_in_use);
	if (likely(gnttab_try_end_foreign_access(ref)))
		return true;

	if (!own && !get_page_unless_zero(compound_head(page))) {
		/* may be in a queue's callback, where vxb_break() cannot be */
		WRITE_ONCE(vxb->unkept, true);
		queue_delayed_work(vxb_workqueue, &vxb->held_work, 0);
		return false;
	}
	vxb_hold(vxb, ref, page);
	return false;
}

/**
 * vxb_held_work - tries again to take back what the backend has kept
 * @work: the device's held_work
 */
void vxb_held_work(struct work_struct *work)
{
	struct vxb_device *vxb = container_of(to_delayed_work(work),
					      struct vxb_device, held_work);
	struct vxb_held *held, *next;
	unsigned long flags;
	LIST_HEAD(list);
	bool late = false;

	spin_lock_irqsave(&vxb->held_lock, flags);
	list_splice_init(&vxb->held, &list);
	spin_unlock_irqrestore(&vxb->held_lock, flags);

	list_for_each_entry_safe(held, next, &list, list) {
		if (!gnttab_try_end_foreign_access(held->ref)) {
			late |= time_after(jiffies,
					   held->since + VXB_HELD_LIMIT * HZ);
			continue;
		}
		list_del(&held->list);
		put_page(held->page);
		kfree(held);
		atomic64_dec(&vxb->grants_held);
	}
	if (READ_ONCE(vxb->unkept))
		vxb_break(vxb, "the backend still uses a page that cannot be kept from reuse");
	if (late)
		vxb_break(vxb, "the backend has used grants for %u s after their end",
			  VXB_HELD_LIMIT);
	if (list_empty(&list))
		return;
	spin_lock_irqsave(&vxb->held_lock, flags);
	list_splice(&list, &vxb->held);
	spin_unlock_irqrestore(&vxb->held_lock, flags);
	queue_delayed_work(vxb_workqueue, &vxb->held_work, HZ);
}

/**
 * vxb_held_give_up - leaves what the backend has kept to the kernel
 * @vxb: device, about to be freed
 *
 * The kernel's own list goes on trying, without us.
 */
void vxb_held_give_up(struct vxb_device *vxb)
{
	struct vxb_held *held, *next;

	cancel_delayed_work_sync(&vxb->held_work);
	list_for_each_entry_safe(held, next, &vxb->held, list) {
		list_del(&held->list);
		gnttab_end_foreign_access(held->ref, held->page);
		kfree(held);
		atomic64_dec(&vxb->grants_held);
	}
}

/**
 * vxb_bounce_get - takes a page for bouncing
 * @vxb: device
 *
 * Nothing but this device's data was ever in it.
 *
 * Return: the page or NULL.
 */
struct page *vxb_bounce_get(struct vxb_device *vxb)
{
	struct page *page;
	unsigned long flags;

	spin_lock_irqsave(&vxb->bounce_lock, flags);
	page = list_first_entry_or_null(&vxb->bounce_pages, struct page, lru);
	if (page) {
		list_del(&page->lru);
		vxb->bounce_count--;
	}
	spin_unlock_irqrestore(&vxb->bounce_lock, flags);

	if (!page)
		page = alloc_page(GFP_ATOMIC | __GFP_ZERO | __GFP_NOWARN);
	if (page)
		atomic64_inc(&vxb->pages_bounced);
	return page;
}

/**
 * vxb_bounce_put - gives a page back whose grant has ended
 * @vxb: device
 * @page: the page
 */
void vxb_bounce_put(struct vxb_device *vxb, struct page *page)
{
	unsigned long flags;
	bool keep;

	spin_lock_irqsave(&vxb->bounce_lock, flags);
	keep = vxb->bounce_count < VXB_BOUNCE_CACHE;
	if (keep) {
		list_add(&page->lru, &vxb->bounce_pages);
		vxb->bounce_count++;
	}
	spin_unlock_irqrestore(&vxb->bounce_lock, flags);
	if (!keep)
		__free_page(page);
}

/**
 * vxb_bounce_free - frees the pages kept for bouncing
 * @vxb: device without a mapping left
 */
void vxb_bounce_free(struct vxb_device *vxb)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, &vxb->bounce_pages, lru) {
		list_del(&page->lru);
		__free_page(page);
	}
	vxb->bounce_count = 0;
}
