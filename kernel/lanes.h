/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What waits to be sent: users' requests pass background work, which gets a turn now and then all
 * the same, for redundancy must come back however busy the users are. Under the caller's lock.
 */
#ifndef SCRIBE_LANES_H
#define SCRIBE_LANES_H

#include <linux/jiffies.h>
#include <linux/list.h>

#define SCRIBE_LANES_TURN_MS 100 /* at the latest, one piece of background work */

struct scribe_lanes {
	struct list_head users, background;
	unsigned long turn_jiffies;	/* when background work was last taken */
};

static inline void scribe_lanes_init(struct scribe_lanes *lanes)
{
	INIT_LIST_HEAD(&lanes->users);
	INIT_LIST_HEAD(&lanes->background);
	lanes->turn_jiffies = jiffies;
}

/* Also under no lock, where a wrong answer is mended by a wake-up. */
static inline bool scribe_lanes_empty(const struct scribe_lanes *lanes)
{
	return list_empty_careful(&lanes->users) && list_empty_careful(&lanes->background);
}

static inline void scribe_lanes_add(struct scribe_lanes *lanes, struct list_head *node,
				    bool background)
{
	list_add_tail(node, background ? &lanes->background : &lanes->users);
}

/* Of what is not empty: the next one, taken out. */
static inline struct list_head *scribe_lanes_take(struct scribe_lanes *lanes)
{
	bool due = time_after_eq(jiffies,
				 lanes->turn_jiffies + msecs_to_jiffies(SCRIBE_LANES_TURN_MS));
	struct list_head *from = &lanes->users;
	struct list_head *node;

	if (list_empty(from) || (due && !list_empty(&lanes->background))) {
		from = &lanes->background;
		lanes->turn_jiffies = jiffies;
	}
	node = from->next;
	list_del_init(node);
	return node;
}

#endif
