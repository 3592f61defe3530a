// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of what decides which I/O of a VSD may run, and which of its leaves may differ in
 * their copies: range.c and intent.c, on a VSD that has neither a device nor a daemon.
 */
#include <kunit/test.h>

#include "io.h"
#include "range.h"

#define EPOCH 7

struct workqueue_struct *scribe_wq;

static struct scribe_io *gone_on[8];
static u32 nr_gone_on;

/* In place of io.c and vsd.c. */
void scribe_io_go(struct scribe_io *io)
{
	if (nr_gone_on < ARRAY_SIZE(gone_on))
		gone_on[nr_gone_on++] = io;
}

bool scribe_vsd_in_epoch(struct scribe_vsd *vsd, u64 epoch)
{
	return vsd->lease == SCRIBE_LEASE_OWNED && vsd->epoch == epoch;
}

static void nothing(struct work_struct *work)
{
}

static struct scribe_vsd *a_vsd(struct kunit *test)
{
	struct scribe_vsd *vsd = kunit_kzalloc(test, sizeof(*vsd), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, vsd);
	scribe_wq = system_wq;
	spin_lock_init(&vsd->lock);
	xa_init(&vsd->leaves);
	INIT_LIST_HEAD(&vsd->intents);
	INIT_WORK(&vsd->kick, nothing);
	for (i = 0; i < SCRIBE_RANGE_BUCKETS; i++)
		INIT_LIST_HEAD(&vsd->ranges[i]);
	vsd->lease = SCRIBE_LEASE_OWNED;
	vsd->epoch = EPOCH;
	vsd->gen = 1;
	nr_gone_on = 0;
	return vsd;
}

/* The memory of a VSD goes with its test, and intent.c has queued its work. */
static void end_vsd(struct scribe_vsd *vsd)
{
	flush_work(&vsd->kick);
	xa_destroy(&vsd->leaves);
}

/* Ranges */

static struct scribe_io *enter(struct kunit *test, struct scribe_vsd *vsd, enum scribe_io_kind kind,
			       u64 chunk, u32 start, u32 len)
{
	struct scribe_io *io = kunit_kzalloc(test, sizeof(*io), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, io);
	io->vsd = vsd;
	io->kind = kind;
	io->chunk = chunk;
	io->lock_start = start;
	io->lock_len = len;
	spin_lock_irq(&vsd->lock);
	scribe_range_enter(io);
	spin_unlock_irq(&vsd->lock);
	return io;
}

static void end(struct scribe_io *io)
{
	spin_lock_irq(&io->vsd->lock);
	list_del_init(&io->node);
	nr_gone_on = 0;
	scribe_range_wake(io->vsd, io->chunk);
	spin_unlock_irq(&io->vsd->lock);
}

static void overlapping_writes_run_one_by_one_as_they_came(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_io *first = enter(test, vsd, SCRIBE_IO_WRITE, 3, 0, 16);
	struct scribe_io *second = enter(test, vsd, SCRIBE_IO_WRITE, 3, 8, 16);
	struct scribe_io *third = enter(test, vsd, SCRIBE_IO_UNMAP, 3, 0, 32);
	struct scribe_io *beside = enter(test, vsd, SCRIBE_IO_WRITE, 3, 64, 8);
	struct scribe_io *elsewhere = enter(test, vsd, SCRIBE_IO_WRITE, 4, 0, 16);

	KUNIT_EXPECT_FALSE(test, first->waiting);
	KUNIT_EXPECT_TRUE(test, second->waiting);
	KUNIT_EXPECT_TRUE(test, third->waiting);
	KUNIT_EXPECT_FALSE(test, beside->waiting);
	KUNIT_EXPECT_FALSE(test, elsewhere->waiting);
	end(first);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 1U);
	KUNIT_EXPECT_PTR_EQ(test, gone_on[0], second);
	KUNIT_EXPECT_TRUE(test, third->waiting);
	end(second);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 1U);
	KUNIT_EXPECT_PTR_EQ(test, gone_on[0], third);
}

static void reads_wait_for_earlier_writes_but_not_for_reads(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_io *before = enter(test, vsd, SCRIBE_IO_READ, 9, 0, 2048);
	struct scribe_io *write = enter(test, vsd, SCRIBE_IO_WRITE, 9, 100, 8);
	struct scribe_io *one = enter(test, vsd, SCRIBE_IO_READ, 9, 0, 2048);
	struct scribe_io *two = enter(test, vsd, SCRIBE_IO_READ, 9, 104, 8);
	struct scribe_io *beside = enter(test, vsd, SCRIBE_IO_READ, 9, 108, 8);

	KUNIT_EXPECT_FALSE(test, before->waiting);
	KUNIT_EXPECT_TRUE(test, write->waiting);
	KUNIT_EXPECT_TRUE(test, one->waiting);
	KUNIT_EXPECT_TRUE(test, two->waiting);
	KUNIT_EXPECT_FALSE(test, beside->waiting);
	end(before);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 1U);
	KUNIT_EXPECT_PTR_EQ(test, gone_on[0], write);
	end(write);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 2U);
	KUNIT_EXPECT_FALSE(test, one->waiting || two->waiting);
}

static void who_wants_the_whole_chunk_waits_for_all_and_all_wait_for_it(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_io *low = enter(test, vsd, SCRIBE_IO_WRITE, 5, 0, 8);
	struct scribe_io *high = enter(test, vsd, SCRIBE_IO_WRITE, 5, 2040, 8);
	struct scribe_io *alone = enter(test, vsd, SCRIBE_IO_WRITE, 5, 0, SCRIBE_CHUNK_SECTORS);
	struct scribe_io *later = enter(test, vsd, SCRIBE_IO_WRITE, 5, 1000, 8);

	end(low);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 0U);
	end(high);
	KUNIT_EXPECT_EQ(test, nr_gone_on, 1U);
	KUNIT_EXPECT_PTR_EQ(test, gone_on[0], alone);
	KUNIT_EXPECT_TRUE(test, later->waiting);
	end(alone);
	KUNIT_EXPECT_PTR_EQ(test, gone_on[0], later);
}

static void changes_to_come_are_counted_by_chunk(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_io *mine = enter(test, vsd, SCRIBE_IO_WRITE, 5, 0, 8);
	struct scribe_io *adds = enter(test, vsd, SCRIBE_IO_WRITE, 5, 16, 8);
	struct scribe_io *in_place = enter(test, vsd, SCRIBE_IO_WRITE, 5, 32, 8);
	struct scribe_io *elsewhere = enter(test, vsd, SCRIBE_IO_WRITE, 6, 0, 8);

	adds->adding = true;
	in_place->adding = true;
	in_place->in_place = true;
	elsewhere->adding = true;
	spin_lock_irq(&vsd->lock);
	KUNIT_EXPECT_EQ(test, scribe_range_changes(mine), 2U);
	spin_unlock_irq(&vsd->lock);
}

static struct kunit_case range_cases[] = {
	KUNIT_CASE(overlapping_writes_run_one_by_one_as_they_came),
	KUNIT_CASE(reads_wait_for_earlier_writes_but_not_for_reads),
	KUNIT_CASE(who_wants_the_whole_chunk_waits_for_all_and_all_wait_for_it),
	KUNIT_CASE(changes_to_come_are_counted_by_chunk),
	{}
};

static struct kunit_suite range_suite = {
	.name = "scribe-range",
	.test_cases = range_cases,
};

/* Intent */

static struct scribe_leaf *a_leaf(struct kunit *test, struct scribe_vsd *vsd, u64 index)
{
	struct scribe_leaf *leaf = kunit_kzalloc(test, sizeof(*leaf), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, leaf);
	leaf->index = index;
	KUNIT_ASSERT_NULL(test, xa_store(&vsd->leaves, index, leaf, GFP_KERNEL));
	return leaf;
}

static u32 drop(struct scribe_vsd *vsd, u64 epoch, u64 index, int *err)
{
	u32 nr = 1;

	*err = scribe_intent_drop(vsd, epoch, &index, &nr);
	return nr;
}

static void intent_stays_until_what_was_written_is_flushed(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_leaf *leaf = a_leaf(test, vsd, 2);
	const u64 leaves[] = { 2, 3 }; /* leaf 3 is not there: it was evicted */
	int err;

	KUNIT_EXPECT_EQ(test, scribe_intent_add(vsd, EPOCH, leaves, 2), 0);
	KUNIT_EXPECT_EQ(test, scribe_intent_add(vsd, EPOCH, leaves, 2), 0);
	KUNIT_EXPECT_EQ(test, vsd->nr_intents, 1U);
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH, 2, &err), 0U);
	vsd->gen = 2;
	vsd->flushed_gen = 2; /* all of batch 1 is flushed */
	leaf->pins = 1;
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH, 2, &err), 0U);
	leaf->pins = 0;
	spin_lock_irq(&vsd->lock);
	scribe_intent_touch(vsd, leaf); /* written in batch 2 */
	spin_unlock_irq(&vsd->lock);
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH, 2, &err), 0U);
	vsd->flushed_gen = 3;
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH, 2, &err), 1U);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_FALSE(test, leaf->intent);
	KUNIT_EXPECT_EQ(test, vsd->nr_intents, 0U);
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH, 2, &err), 0U);
	end_vsd(vsd);
}

static void intent_of_another_epoch_changes_nothing(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_leaf *leaf = a_leaf(test, vsd, 2);
	const u64 index = 2;
	int err;

	KUNIT_EXPECT_EQ(test, scribe_intent_add(vsd, EPOCH - 1, &index, 1), -ESTALE);
	KUNIT_EXPECT_FALSE(test, leaf->intent);
	KUNIT_EXPECT_EQ(test, scribe_intent_add(vsd, EPOCH, &index, 1), 0);
	vsd->flushed_gen = 9;
	KUNIT_EXPECT_EQ(test, drop(vsd, EPOCH + 1, 2, &err), 0U);
	KUNIT_EXPECT_EQ(test, err, -ESTALE);
	KUNIT_EXPECT_TRUE(test, leaf->intent);
	end_vsd(vsd);
}

static void leaves_that_nobody_writes_any_more_are_named_oldest_first(struct kunit *test)
{
	struct scribe_vsd *vsd = a_vsd(test);
	struct scribe_work_rec recs[4];
	struct scribe_leaf *leaf[3];
	u64 i;

	for (i = 0; i < 3; i++) {
		leaf[i] = a_leaf(test, vsd, i);
		KUNIT_ASSERT_EQ(test, scribe_intent_add(vsd, EPOCH, &i, 1), 0);
	}
	vsd->gen = 2;
	vsd->flushed_gen = 2;
	KUNIT_EXPECT_EQ(test, scribe_intent_collect(vsd, recs, 4), 0U); /* written just now */
	spin_lock_irq(&vsd->lock);
	scribe_intent_touch(vsd, leaf[0]); /* now the newest, and not flushed */
	spin_unlock_irq(&vsd->lock);
	for (i = 0; i < 3; i++)
		leaf[i]->intent_jiffies = jiffies - 2 * msecs_to_jiffies(SCRIBE_INTENT_IDLE_MS);
	KUNIT_EXPECT_EQ(test, scribe_intent_collect(vsd, recs, 4), 2U);
	KUNIT_EXPECT_EQ(test, recs[0].arg, 1ULL);
	KUNIT_EXPECT_EQ(test, recs[1].arg, 2ULL);
	KUNIT_EXPECT_EQ(test, scribe_intent_collect(vsd, recs, 1), 1U);
	end_vsd(vsd);
}

static struct kunit_case intent_cases[] = {
	KUNIT_CASE(intent_stays_until_what_was_written_is_flushed),
	KUNIT_CASE(intent_of_another_epoch_changes_nothing),
	KUNIT_CASE(leaves_that_nobody_writes_any_more_are_named_oldest_first),
	{}
};

static struct kunit_suite intent_suite = {
	.name = "scribe-intent",
	.test_cases = intent_cases,
};

kunit_test_suites(&range_suite, &intent_suite);
