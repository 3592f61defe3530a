// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the pure files, as the kernel compiles them: scripts/kunit builds them into a user
 * mode kernel, and SCRIBE_KUNIT=1 into scribe_kunit.ko, for the debug kernel with KASAN. The same
 * files have property tests in userspace (tests/unit).
 */
#include <kunit/test.h>
#include <linux/module.h>
#include <linux/prandom.h>

#include "lanes.h"
#include "segs.h"
#include "superblock.h"
#include "wire.h"

#define STEPS 400
#define DEVICE_SECTORS 4194304

/* Segments against a model that knows one sector at a time. */

struct sector {
	struct scribe_extent *extent;
	u32 off;
};

static struct scribe_extent *extent_nr(u32 nr)
{
	return (struct scribe_extent *)(uintptr_t)(nr << 4);
}

/* Exactly as large as the splice may need: KASAN sees what it writes beyond. */
static struct scribe_segs *room_for(struct kunit *test, const struct scribe_segs *old)
{
	u32 capacity = (old ? old->nr : 0) + SCRIBE_SEGS_GROWTH;
	struct scribe_segs *segs =
		kunit_kzalloc(test, struct_size(segs, seg, capacity), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, segs);
	segs->capacity = capacity;
	return segs;
}

static void check_model(struct kunit *test, const struct scribe_segs *segs,
			const struct sector *model)
{
	u32 pos;

	for (pos = 0; pos < SCRIBE_CHUNK_SECTORS; pos++) {
		u32 i = scribe_segs_find(segs, pos);
		const struct scribe_seg *seg = i < segs->nr ? &segs->seg[i] : NULL;
		bool mapped = seg && seg->start <= pos;

		KUNIT_ASSERT_PTR_EQ(test, mapped ? seg->extent : NULL, model[pos].extent);
		if (mapped)
			KUNIT_ASSERT_EQ(test, seg->off + (pos - seg->start), model[pos].off);
	}
}

static void any_history_of_splices_equals_the_model(struct kunit *test)
{
	struct sector *model =
		kunit_kcalloc(test, SCRIBE_CHUNK_SECTORS, sizeof(*model), GFP_KERNEL);
	struct scribe_segs *segs = NULL;
	struct rnd_state rnd;
	u32 step, i;

	KUNIT_ASSERT_NOT_NULL(test, model);
	prandom_seed_state(&rnd, 1);
	for (step = 0; step < STEPS; step++) {
		u32 start = prandom_u32_state(&rnd) % SCRIBE_CHUNK_SECTORS;
		u32 len = 1 + prandom_u32_state(&rnd) % (SCRIBE_CHUNK_SECTORS - start);
		u32 off = prandom_u32_state(&rnd) % (SCRIBE_CHUNK_SECTORS - len + 1);
		struct scribe_extent *extent = extent_nr(prandom_u32_state(&rnd) % 5);
		struct scribe_segs *fresh = room_for(test, segs);

		KUNIT_ASSERT_EQ(test, scribe_segs_splice(segs, start, len, extent, off, fresh), 0);
		for (i = 0; i < len; i++)
			model[start + i] = (struct sector){ extent, extent ? off + i : 0 };
		check_model(test, fresh, model);
		if (segs)
			kunit_kfree(test, segs);
		segs = fresh;
	}
}

static void ranges_outside_the_chunk_are_refused(struct kunit *test)
{
	struct scribe_segs *out = room_for(test, NULL);
	struct scribe_extent *extent = extent_nr(1);
	const u32 end = SCRIBE_CHUNK_SECTORS;

	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, 0, 0, extent, 0, out), -EINVAL);
	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, end, 1, extent, 0, out), -EINVAL);
	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, 1, end, extent, 0, out), -EINVAL);
	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, 0, 2, extent, end - 1, out), -EINVAL);
	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, U32_MAX, 2, extent, 0, out), -EINVAL);
	out->capacity--;
	KUNIT_EXPECT_EQ(test, scribe_segs_splice(NULL, 0, 8, extent, 0, out), -ENOSPC);
	KUNIT_EXPECT_EQ(test, out->nr, 0);
}

static struct kunit_case segs_cases[] = { KUNIT_CASE(any_history_of_splices_equals_the_model),
					  KUNIT_CASE(ranges_outside_the_chunk_are_refused),
					  {} };

static struct kunit_suite segs_suite = {
	.name = "scribe-segs",
	.test_cases = segs_cases,
};

/* Headers of the backplane */

static struct scribe_msg a_write(void)
{
	return (struct scribe_msg){
		.tag = 7,
		.sender_life = 0x1122334455667788ULL,
		.expected_life = 0x99aabbccddeeff00ULL,
		.sector = 4096,
		.length_bytes = 8192,
		.disk = 3,
		.op = SCRIBE_WIRE_WRITE,
	};
}

static void a_header_with_any_bit_flipped_is_refused(struct kunit *test)
{
	struct scribe_msg msg = a_write(), out;
	struct scribe_wire_header header;
	u32 bit;

	scribe_wire_encode(&msg, &header);
	KUNIT_ASSERT_NULL(test, (void *)scribe_wire_decode(&header, &out));
	KUNIT_EXPECT_EQ(test, out.sector, msg.sector);
	KUNIT_EXPECT_EQ(test, scribe_wire_payload_bytes(&out), 8192);
	for (bit = 0; bit < sizeof(header) * 8; bit++) {
		((u8 *)&header)[bit / 8] ^= 1 << bit % 8;
		KUNIT_EXPECT_NOT_NULL(test, (void *)scribe_wire_decode(&header, &out));
		((u8 *)&header)[bit / 8] ^= 1 << bit % 8;
	}
}

/* Random fields under a right checksum: what is accepted keeps to the bounds. */
static void an_accepted_header_keeps_to_the_bounds(struct kunit *test)
{
	struct scribe_wire_header header;
	struct scribe_msg msg = a_write();
	struct rnd_state rnd;
	u32 step, accepted = 0;

	prandom_seed_state(&rnd, 2);
	for (step = 0; step < 100000; step++) {
		scribe_wire_encode(&msg, &header);
		/* One or a few bytes behind magic and version. */
		do {
			((u8 *)&header)[5 + prandom_u32_state(&rnd) % 55] = prandom_u32_state(&rnd);
		} while (prandom_u32_state(&rnd) % 2);
		header.header_crc = cpu_to_le32(
			~crc32c(~0U, &header, offsetof(struct scribe_wire_header, header_crc)));
		if (scribe_wire_decode(&header, &msg)) {
			msg = a_write();
			continue;
		}
		accepted++;
		KUNIT_ASSERT_LE(test, msg.length_bytes, SCRIBE_WIRE_MAX_BYTES);
		KUNIT_ASSERT_EQ(test, msg.length_bytes % 512, 0);
		KUNIT_ASSERT_LE(test, scribe_wire_payload_bytes(&msg), msg.length_bytes);
		KUNIT_ASSERT_LT(test, (int)msg.op, (int)SCRIBE_WIRE_NR_OPS);
	}
	KUNIT_EXPECT_GT(test, accepted, 0);
}

static struct kunit_case wire_cases[] = { KUNIT_CASE(a_header_with_any_bit_flipped_is_refused),
					  KUNIT_CASE(an_accepted_header_keeps_to_the_bounds),
					  {} };

static struct kunit_suite wire_suite = {
	.name = "scribe-wire",
	.test_cases = wire_cases,
};

/* Superblocks */

static struct scribe_superblock *a_superblock(struct kunit *test, u64 generation)
{
	struct scribe_superblock *sb = kunit_kzalloc(test, sizeof(*sb), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, sb);
	sb->magic = cpu_to_le64(SCRIBE_DISK_MAGIC);
	sb->version = cpu_to_le32(SCRIBE_DISK_VERSION);
	sb->disk_id = cpu_to_le32(5);
	sb->generation = cpu_to_le64(generation);
	sb->disk_sectors = cpu_to_le64(DEVICE_SECTORS);
	sb->data_start_sector = cpu_to_le64(SCRIBE_DATA_START_SECTOR);
	sb->nr_slots = cpu_to_le64(scribe_sb_slots_for(DEVICE_SECTORS));
	sb->intent_start_sector = cpu_to_le64(SCRIBE_INTENT_START_SECTOR);
	sb->intent_sectors = cpu_to_le64(SCRIBE_INTENT_SECTORS);
	sb->intent_region_sectors = cpu_to_le64(SCRIBE_INTENT_REGION_SECTORS);
	sb->checksum = cpu_to_le32(scribe_sb_checksum(sb));
	return sb;
}

static void a_superblock_with_any_bit_flipped_is_refused(struct kunit *test)
{
	struct scribe_superblock *sb = a_superblock(test, 1);
	u32 bit;

	KUNIT_ASSERT_NULL(test, (void *)scribe_sb_check(sb, DEVICE_SECTORS));
	for (bit = 0; bit < SCRIBE_SB_BYTES * 8; bit++) {
		((u8 *)sb)[bit / 8] ^= 1 << bit % 8;
		KUNIT_ASSERT_NOT_NULL(test, (void *)scribe_sb_check(sb, DEVICE_SECTORS));
		((u8 *)sb)[bit / 8] ^= 1 << bit % 8;
	}
}

static void the_newer_valid_superblock_counts(struct kunit *test)
{
	struct scribe_superblock *older = a_superblock(test, 1), *newer = a_superblock(test, 2);
	struct scribe_superblock *torn = a_superblock(test, 3);
	const char *why = NULL;

	memset((u8 *)torn + 2048, 0xa5, 2048);
	KUNIT_EXPECT_PTR_EQ(test, scribe_sb_choose(older, newer, DEVICE_SECTORS, &why),
			    (const struct scribe_superblock *)newer);
	KUNIT_EXPECT_PTR_EQ(test, scribe_sb_choose(torn, older, DEVICE_SECTORS, &why),
			    (const struct scribe_superblock *)older);
	KUNIT_EXPECT_PTR_EQ(test, scribe_sb_choose(NULL, older, DEVICE_SECTORS, &why),
			    (const struct scribe_superblock *)older);
	KUNIT_EXPECT_NULL(test, (void *)scribe_sb_choose(torn, NULL, DEVICE_SECTORS, &why));
	KUNIT_EXPECT_STREQ(test, why, "bad superblock checksum");
}

static struct kunit_case superblock_cases[] = {
	KUNIT_CASE(a_superblock_with_any_bit_flipped_is_refused),
	KUNIT_CASE(the_newer_valid_superblock_counts),
	{}
};

static struct kunit_suite superblock_suite = {
	.name = "scribe-superblock",
	.test_cases = superblock_cases,
};

/* Lanes */

static void users_pass_background_work_which_gets_its_turn(struct kunit *test)
{
	struct scribe_lanes lanes;
	unsigned long before;
	LIST_HEAD(user);
	LIST_HEAD(other_user);
	LIST_HEAD(background);
	LIST_HEAD(more_background);

	scribe_lanes_init(&lanes);
	KUNIT_EXPECT_TRUE(test, scribe_lanes_empty(&lanes));
	scribe_lanes_add(&lanes, &background, true);
	scribe_lanes_add(&lanes, &more_background, true);
	scribe_lanes_add(&lanes, &user, false);
	scribe_lanes_add(&lanes, &other_user, false);
	lanes.turn_jiffies = jiffies + HZ; /* whatever the time that this test takes */
	KUNIT_EXPECT_PTR_EQ(test, scribe_lanes_take(&lanes), &user);
	lanes.turn_jiffies = jiffies - msecs_to_jiffies(SCRIBE_LANES_TURN_MS);
	before = jiffies;
	KUNIT_EXPECT_PTR_EQ(test, scribe_lanes_take(&lanes), &background);
	KUNIT_EXPECT_TRUE(test, time_in_range(lanes.turn_jiffies, before, jiffies));
	lanes.turn_jiffies = jiffies + HZ;
	KUNIT_EXPECT_PTR_EQ(test, scribe_lanes_take(&lanes), &other_user);
	KUNIT_EXPECT_PTR_EQ(test, scribe_lanes_take(&lanes), &more_background);
	KUNIT_EXPECT_TRUE(test, scribe_lanes_empty(&lanes));
	KUNIT_EXPECT_TRUE(test, list_empty(&user) && list_empty(&more_background));
}

static struct kunit_case lanes_cases[] = {
	KUNIT_CASE(users_pass_background_work_which_gets_its_turn), {}
};

static struct kunit_suite lanes_suite = {
	.name = "scribe-lanes",
	.test_cases = lanes_cases,
};

kunit_test_suites(&segs_suite, &wire_suite, &superblock_suite, &lanes_suite);

MODULE_DESCRIPTION("KUnit tests of dm_scribe");
MODULE_LICENSE("GPL");
