/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio over XenBus, version 1: device page, device state, what the files of
 * this module share. The numbers in brackets are requirements of
 * docs/virtio-xenbus.md.
 */
#ifndef VIRTIO_XENBUS_H
#define VIRTIO_XENBUS_H

#include <linux/atomic.h>
#include <linux/build_bug.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/types.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/xenbus.h>

#define VXB_VERSION		1
#define VXB_MAGIC		0x74726976	/* "virt" */
#define VXB_CONFIG_MAX		0x400		/* bytes of configuration space */
#define VXB_DATA_MAX		64		/* bytes of one configuration write */
#define VXB_QUEUES_MAX		4096		/* more than any driver asks for */
#define VXB_QUEUE_SIZE_MAX	32768		/* virtio 1.3 §2.7 */
#define VXB_CONFIG_TRIES	100		/* attempts at a stable configuration */
#define VXB_COMMAND_LIMIT	30		/* s, default of command_limit */
#define VXB_CLOSE_LIMIT		5		/* s, for the backend to let go */
#define VXB_TURN_LIMIT		5		/* s, for devices with lower numbers to connect */
#define VXB_HELD_LIMIT		60		/* s, a backend may keep a returned page */
#define VXB_MAPPING_MAX		(256 * 1024)	/* bytes, one DMA mapping */
#define VXB_BOUNCE_CACHE	256		/* pages kept for bouncing, a device */

enum vxb_command_code {
	VXB_SET_STATUS = 1,
	VXB_QUEUE_QUERY = 2,
	VXB_QUEUE_ENABLE = 3,
	VXB_QUEUE_RESET = 4,
	VXB_CONFIG_WRITE = 5,
};

enum vxb_result {
	VXB_OK = 0,
	VXB_INVALID = 1,
	VXB_UNKNOWN = 2,
	VXB_STATE = 3,
	VXB_FAULT = 4,
};

/**
 * struct vxb_page - the device page, shared with the backend
 *
 * The first half is written by the device only, the second by the driver
 * only. Nothing in the first half may be believed, nor read twice.
 */
struct vxb_page {
	__le32 magic;
	__le32 version;
	__le32 device_id;
	__le32 vendor_id;
	__le32 num_queues;
	__le32 config_size;
	__le32 status;
	__le32 config_generation;
	__le64 device_features[2];
	__le32 ack_seq;
	__le32 ack_result;
	__le64 ack_value;
	u8 reserved_device[0x100 - 0x40];
	__le32 config[VXB_CONFIG_MAX / 4];
	u8 reserved_device_end[0x800 - 0x500];

	__le32 cmd_seq;
	__le32 cmd;
	__le32 queue;
	__le32 value;
	__le64 desc;
	__le64 driver;
	__le64 device;
	__le32 port;
	__le32 offset;
	__le64 driver_features[2];
	u8 data[VXB_DATA_MAX];
	u8 reserved_driver[0x1000 - 0x880];
};

static_assert(offsetof(struct vxb_page, ack_seq) == 0x030);
static_assert(offsetof(struct vxb_page, config) == 0x100);
static_assert(offsetof(struct vxb_page, cmd_seq) == 0x800);
static_assert(offsetof(struct vxb_page, driver_features) == 0x830);
static_assert(offsetof(struct vxb_page, data) == 0x840);
static_assert(sizeof(struct vxb_page) == XEN_PAGE_SIZE);

/**
 * struct vxb_command - one command, in the processor's byte order
 */
struct vxb_command {
	enum vxb_command_code code;
	u32 queue;
	u32 value;
	u32 offset;
	u64 desc;
	u64 driver;
	u64 device;
	evtchn_port_t port;	/* of the queue; 0: the device's */
	const void *data;	/* value bytes of it, for VXB_CONFIG_WRITE */
};

struct vxb_device;

/**
 * struct vxb_memory - one way for the backend to reach our memory
 * @name: as in XenStore
 * @keeps: what is freed while the backend still has it is kept from reuse
 * @start: prepares the DMA operations of the xenbus device; if it cannot, it
 *	returns an error and says why, and nothing is left behind
 * @stop: takes them away; the virtio device is gone by then
 */
struct vxb_memory {
	const char *name;
	bool keeps;
	int (*start)(struct vxb_device *vxb, const char **why);
	void (*stop)(struct vxb_device *vxb);
};

/**
 * struct vxb_channel - an event channel
 * @port: our end of it
 * @irq: the interrupt that it is to us; 0: there is none
 */
struct vxb_channel {
	evtchn_port_t port;
	int irq;
};

/**
 * struct vxb_queue - a virtqueue and what the event handler knows of it
 * @vxb: its device
 * @channel: its own event channel, if it has one; else it shares the device's
 * @name: of that in /proc/interrupts
 * @vq: the virtqueue, NULL if the driver does not use it
 * @split: its used index can be looked at
 * @busy: it had buffers out when the watchdog last looked
 * @used: used index at the last event
 * @watched: used index when the watchdog last looked
 */
struct vxb_queue {
	struct vxb_device *vxb;
	struct vxb_channel channel;
	char name[40];
	struct virtqueue *vq;
	bool split;
	bool busy;
	u16 used;
	u16 watched;
};

/**
 * struct vxb_virtio - a registered virtio device; lives as long as its references
 */
struct vxb_virtio {
	struct virtio_device vdev;
	struct vxb_device *vxb;
};

/**
 * struct vxb_device - one xenbus device of type "virtio"
 *
 * Transitions (connect, disconnect) run in @work or in remove(), never in both.
 */
struct vxb_device {
	struct xenbus_device *xdev;
	struct work_struct work;
	enum xenbus_state backend_state;
	bool resumed;			/* after a restore: nothing left to talk to */

	/* device page and commands */
	struct vxb_page *page;
	grant_ref_t page_ref;
	struct mutex command_lock;	/* one command at a time */
	wait_queue_head_t answered;
	u32 seq;
	bool broken;
	u8 status;			/* as the driver last set it */
	bool was_reset;			/* the last reset was acknowledged */
	u64 features;			/* as the driver accepted them */

	/* snapshot of the configuration space */
	spinlock_t config_lock;
	u32 num_queues;
	u32 config_size;
	u32 generation;
	__le32 config[VXB_CONFIG_MAX / 4];
	__le32 config_new[VXB_CONFIG_MAX / 4];

	/* events */
	struct vxb_channel channel;
	bool queue_channels;		/* queues have their own */
	spinlock_t event_lock;		/* virtio, queues, and the three below */
	struct vxb_virtio *virtio;
	struct vxb_queue *queues;
	unsigned int queue_count;
	unsigned int rings_left;	/* to the backend, never to be freed */
	u32 seen_ack;
	u32 seen_generation;
	bool seen_needs_reset;
	struct timer_list watchdog;

	/* memory access */
	const struct vxb_memory *memory;
	bool trusted;
	spinlock_t bounce_lock;		/* bounce_pages, bounce_count */
	struct list_head bounce_pages;
	unsigned int bounce_count;
	spinlock_t held_lock;		/* held */
	struct list_head held;
	bool unkept;			/* a page could not be put there */
	struct delayed_work held_work;

	/* counters, for sysfs */
	atomic64_t grants_in_use;
	atomic64_t grants_held;
	atomic64_t grants_made;
	atomic64_t pages_bounced;
	atomic64_t kicks;
	atomic64_t events;
	atomic64_t events_spurious;
	atomic64_t commands;
};

static inline struct vxb_device *to_vxb(struct virtio_device *vdev)
{
	return container_of(vdev, struct vxb_virtio, vdev)->vxb;
}

extern struct workqueue_struct *vxb_workqueue;
extern const struct attribute_group *vxb_groups[];
extern const struct virtio_config_ops vxb_config_ops;
extern const struct vxb_memory vxb_memory_grant;
extern const struct vxb_memory vxb_memory_foreign;

/* driver.c */
bool vxb_is_ours(const char *node);

/* states.c */
void vxb_work(struct work_struct *work);
void vxb_gone(struct vxb_device *vxb);
void vxb_unregister(struct vxb_device *vxb);
void vxb_release(struct vxb_device *vxb);

/* users.c */
unsigned int vxb_users(struct vxb_device *vxb);

/* page.c */
int vxb_page_start(struct vxb_device *vxb);
void vxb_page_stop(struct vxb_device *vxb);
int vxb_page_check(struct vxb_device *vxb, u32 *device_id, u32 *vendor_id);
int vxb_command(struct vxb_device *vxb, const struct vxb_command *command,
		u64 *value);
unsigned long vxb_command_jiffies(void);
bool vxb_config_refresh(struct vxb_device *vxb, bool force);
__printf(2, 3)
void vxb_break(struct vxb_device *vxb, const char *format, ...);

/* events.c */
int vxb_events_start(struct vxb_device *vxb);
void vxb_events_stop(struct vxb_device *vxb);
void vxb_events_synchronize(struct vxb_device *vxb);
int vxb_queue_channel_start(struct vxb_queue *queue);
void vxb_queue_channel_stop(struct vxb_queue *queue);
void vxb_queue_notify(struct vxb_queue *queue);
bool vxb_queues_event(struct vxb_device *vxb, bool all);

/* watchdog.c */
u16 vxb_used_index(struct virtqueue *vq);
void vxb_watch(struct vxb_device *vxb);
void vxb_watchdog(struct timer_list *timer);

/* queues.c */
void vxb_queues_break(struct vxb_device *vxb);
void vxb_del_vqs(struct virtio_device *vdev);

/* config.c */
void vxb_reset(struct virtio_device *vdev);

/* memory.c */
const struct vxb_memory *vxb_memory_start(struct vxb_device *vxb);

/* grants.c */
int vxb_grants_init(void);
void vxb_grants_exit(void);
int vxb_grants_reserve(struct vxb_device *vxb, unsigned int count,
		       grant_ref_t *first);
void vxb_grants_release(struct vxb_device *vxb, grant_ref_t first,
			unsigned int count);
void vxb_grant(struct vxb_device *vxb, grant_ref_t ref, struct page *page,
	       struct page *origin, bool readonly);
bool vxb_grant_find(grant_ref_t ref, struct page **page, struct page **origin);
bool vxb_grant_end(struct vxb_device *vxb, grant_ref_t ref, bool own);
void vxb_held_work(struct work_struct *work);
void vxb_held_give_up(struct vxb_device *vxb);
struct page *vxb_bounce_get(struct vxb_device *vxb);
void vxb_bounce_put(struct vxb_device *vxb, struct page *page);
void vxb_bounce_free(struct vxb_device *vxb);

#endif
