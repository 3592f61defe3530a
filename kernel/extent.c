// SPDX-License-Identifier: GPL-2.0
#include "extent.h"

#include <linux/hash.h>
#include <linux/vmalloc.h>

#define TABLE_BITS 18
#define LOCK_BITS 8

static struct kmem_cache *cache;
static struct hlist_head *table;
static spinlock_t locks[1 << LOCK_BITS];
static atomic_long_t nr_extents;

static u32 bucket_of(u64 id)
{
	return hash_64(id, TABLE_BITS);
}

static spinlock_t *lock_of(u32 bucket)
{
	return &locks[bucket & ((1 << LOCK_BITS) - 1)];
}

int scribe_extent_init(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(locks); i++)
		spin_lock_init(&locks[i]);
	table = vcalloc(1UL << TABLE_BITS, sizeof(*table));
	if (!table)
		return -ENOMEM;
	cache = KMEM_CACHE(scribe_extent, 0);
	if (!cache) {
		vfree(table);
		return -ENOMEM;
	}
	return 0;
}

void scribe_extent_exit(void)
{
	WARN_ON_ONCE(atomic_long_read(&nr_extents));
	kmem_cache_destroy(cache);
	vfree(table);
}

const char *scribe_extent_rec_check(const struct scribe_extent_rec *rec)
{
	u32 i, j;

	if (!rec->id)
		return "extent id 0";
	if (!rec->nr_copies || rec->nr_copies > SCRIBE_MAX_COPIES)
		return "number of copies out of range";
	for (i = 0; i < rec->nr_copies; i++) {
		if (!rec->copy[i].disk || rec->copy[i].disk > SCRIBE_DISK_MAX_ID)
			return "disk of a copy out of range";
		for (j = 0; j < i; j++) {
			if (rec->copy[i].disk == rec->copy[j].disk)
				return "two copies on one disk";
		}
	}
	return NULL;
}

static struct scribe_extent *find_locked(u32 bucket, u64 id, u32 owner)
{
	struct scribe_extent *extent;

	hlist_for_each_entry(extent, &table[bucket], hash) {
		if (extent->id == id && READ_ONCE(extent->owner) == owner &&
		    refcount_inc_not_zero(&extent->refs))
			return extent;
	}
	return NULL;
}

struct scribe_extent *scribe_extent_find(u64 id, u32 owner)
{
	u32 bucket = bucket_of(id);
	struct scribe_extent *found;
	unsigned long flags;

	spin_lock_irqsave(lock_of(bucket), flags);
	found = find_locked(bucket, id, owner);
	spin_unlock_irqrestore(lock_of(bucket), flags);
	return found;
}

struct scribe_extent *scribe_extent_intern(const struct scribe_extent_rec *rec, u32 owner,
					   bool fresh)
{
	u32 bucket = bucket_of(rec->id);
	struct scribe_extent *extent, *found;
	unsigned long flags;
	u32 i;

	extent = kmem_cache_zalloc(cache, GFP_KERNEL);
	if (!extent)
		return NULL;
	extent->id = rec->id;
	extent->owner = owner;
	refcount_set(&extent->refs, 1);
	extent->flags = rec->flags & SCRIBE_EXTENT_EXCLUSIVE ? SCRIBE_EXT_EXCLUSIVE : 0;
	extent->fill = fresh ? 0 : SCRIBE_CHUNK_SECTORS;
	extent->nr_copies = rec->nr_copies;
	for (i = 0; i < rec->nr_copies; i++) {
		extent->copy[i].slot = rec->copy[i].slot;
		extent->copy[i].disk = rec->copy[i].disk;
		extent->copy[i].flags = rec->copy[i].flags & SCRIBE_COPY_STALE;
	}

	spin_lock_irqsave(lock_of(bucket), flags);
	found = find_locked(bucket, rec->id, owner);
	if (!found) {
		hlist_add_head(&extent->hash, &table[bucket]);
		atomic_long_inc(&nr_extents);
	}
	spin_unlock_irqrestore(lock_of(bucket), flags);

	if (found) {
		kmem_cache_free(cache, extent);
		return found;
	}
	return extent;
}

void scribe_extent_put(struct scribe_extent *extent)
{
	u32 bucket = bucket_of(extent->id);
	unsigned long flags;

	if (!refcount_dec_and_test(&extent->refs))
		return;
	spin_lock_irqsave(lock_of(bucket), flags);
	hlist_del(&extent->hash);
	spin_unlock_irqrestore(lock_of(bucket), flags);
	atomic_long_dec(&nr_extents);
	kmem_cache_free(cache, extent);
}

unsigned long scribe_extent_count(void)
{
	return atomic_long_read(&nr_extents);
}
