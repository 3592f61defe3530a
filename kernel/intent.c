// SPDX-License-Identifier: GPL-2.0
/*
 * Intent (R5): a leaf is written in place only while the metadata knows that its copies may
 * differ. When an owner dies in the middle, whoever comes next leaves one copy of each extent there
 * current, and the mover makes the others equal to it. A write that wants a leaf without intent is
 * parked; the daemon commits the intent, then says INTENT_ADD.
 *
 * Copies of a leaf are equal, and durably so, when no write of it is under way and all that were
 * are flushed. What was redirected after it had failed in place counts as written until its batch
 * is committed, for that is what flushed means here.
 */
#include "vsd.h"

static bool equal_copies(const struct scribe_vsd *vsd, const struct scribe_leaf *leaf)
{
	return !leaf->pins && leaf->written_gen < vsd->flushed_gen;
}

void scribe_intent_touch(struct scribe_vsd *vsd, struct scribe_leaf *leaf)
{
	lockdep_assert_held(&vsd->lock);
	leaf->written_gen = vsd->gen;
	leaf->intent_jiffies = jiffies;
	if (leaf->intent)
		list_move_tail(&leaf->intent_node, &vsd->intents);
}

void scribe_intent_forget(struct scribe_vsd *vsd, struct scribe_leaf *leaf)
{
	lockdep_assert_held(&vsd->lock);
	if (!leaf->intent)
		return;
	leaf->intent = false;
	list_del(&leaf->intent_node);
	vsd->nr_intents--;
}

int scribe_intent_add(struct scribe_vsd *vsd, u64 epoch, const u64 *leaves, u32 nr)
{
	int err;
	u32 i;

	spin_lock_irq(&vsd->lock);
	err = scribe_vsd_in_epoch(vsd, epoch) ? 0 : -ESTALE;
	for (i = 0; i < nr && !err; i++) {
		struct scribe_leaf *leaf = xa_load(&vsd->leaves, leaves[i]);

		if (!leaf || leaf->intent)
			continue;
		leaf->intent = true;
		list_add_tail(&leaf->intent_node, &vsd->intents);
		vsd->nr_intents++;
		/* It may have been evicted and loaded again since it was written. */
		scribe_intent_touch(vsd, leaf);
	}
	spin_unlock_irq(&vsd->lock);
	queue_work(scribe_wq, &vsd->kick);
	return err;
}

int scribe_intent_drop(struct scribe_vsd *vsd, u64 epoch, u64 *leaves, u32 *nr)
{
	u32 i, left = 0;
	int err;

	spin_lock_irq(&vsd->lock);
	err = scribe_vsd_in_epoch(vsd, epoch) ? 0 : -ESTALE;
	for (i = 0; i < *nr && !err; i++) {
		struct scribe_leaf *leaf = xa_load(&vsd->leaves, leaves[i]);

		if (!leaf || !leaf->intent || !equal_copies(vsd, leaf))
			continue;
		scribe_intent_forget(vsd, leaf);
		leaves[left++] = leaves[i];
	}
	spin_unlock_irq(&vsd->lock);
	*nr = left;
	return err;
}

u32 scribe_intent_collect(struct scribe_vsd *vsd, struct scribe_work_rec *recs, u32 max)
{
	unsigned long limit;
	struct scribe_leaf *leaf;
	u32 nr = 0;

	spin_lock_irq(&vsd->lock);
	if (vsd->nr_intents > SCRIBE_INTENTS_MAX - SCRIBE_INTENT_SPARE)
		limit = 0; /* others may wait for them */
	else if (vsd->nr_intents > SCRIBE_INTENT_MANY)
		limit = msecs_to_jiffies(SCRIBE_INTENT_SHORT_MS);
	else
		limit = msecs_to_jiffies(SCRIBE_INTENT_IDLE_MS);
	list_for_each_entry(leaf, &vsd->intents, intent_node) {
		if (nr == max || nr == SCRIBE_LEAF_WANTED_MAX ||
		    time_before(jiffies, leaf->intent_jiffies + limit))
			break;
		if (!equal_copies(vsd, leaf))
			continue;
		recs[nr++] = (struct scribe_work_rec){
			.type = SCRIBE_WORK_INTENT_IDLE,
			.vsd = vsd->id,
			.arg = leaf->index,
		};
	}
	spin_unlock_irq(&vsd->lock);
	return nr;
}
