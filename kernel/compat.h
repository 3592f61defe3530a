/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between the supported kernels, 6.1 to 6.12, so that no other file has a version
 * test.
 */
#ifndef SCRIBE_COMPAT_H
#define SCRIBE_COMPAT_H

#include <linux/blkdev.h>
#include <linux/shrinker.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)

struct scribe_bdev {
	struct file *file;
};

static inline int scribe_bdev_open(struct scribe_bdev *handle, const char *path, void *holder)
{
	const blk_mode_t mode = BLK_OPEN_READ | BLK_OPEN_WRITE;
	struct file *file = bdev_file_open_by_path(path, mode, holder, NULL);

	if (IS_ERR(file))
		return PTR_ERR(file);
	handle->file = file;
	return 0;
}

static inline struct block_device *scribe_bdev_get(struct scribe_bdev *handle)
{
	return file_bdev(handle->file);
}

static inline void scribe_bdev_close(struct scribe_bdev *handle)
{
	fput(handle->file);
	handle->file = NULL;
}

#else

struct scribe_bdev {
	struct block_device *bdev;
};

#define SCRIBE_FMODE (FMODE_READ | FMODE_WRITE | FMODE_EXCL)

static inline int scribe_bdev_open(struct scribe_bdev *handle, const char *path, void *holder)
{
	struct block_device *bdev = blkdev_get_by_path(path, SCRIBE_FMODE, holder);

	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	handle->bdev = bdev;
	return 0;
}

static inline struct block_device *scribe_bdev_get(struct scribe_bdev *handle)
{
	return handle->bdev;
}

static inline void scribe_bdev_close(struct scribe_bdev *handle)
{
	blkdev_put(handle->bdev, SCRIBE_FMODE);
	handle->bdev = NULL;
}

#endif

static inline void scribe_limit_discards(struct queue_limits *limits, u32 max_sectors)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	limits->max_hw_discard_sectors = max_sectors;
#else
	limits->max_hw_discard_sectors = max_sectors;
	limits->max_discard_sectors = max_sectors;
#endif
	limits->max_write_zeroes_sectors = max_sectors;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)

static inline struct shrinker *scribe_shrinker_new(
	unsigned long (*count)(struct shrinker *shrinker, struct shrink_control *sc),
	unsigned long (*scan)(struct shrinker *shrinker, struct shrink_control *sc))
{
	struct shrinker *shrinker = shrinker_alloc(0, "scribe-leaf");

	if (!shrinker)
		return NULL;
	shrinker->count_objects = count;
	shrinker->scan_objects = scan;
	shrinker_register(shrinker);
	return shrinker;
}

static inline void scribe_shrinker_free(struct shrinker *shrinker)
{
	shrinker_free(shrinker);
}

#else

static inline struct shrinker *scribe_shrinker_new(
	unsigned long (*count)(struct shrinker *shrinker, struct shrink_control *sc),
	unsigned long (*scan)(struct shrinker *shrinker, struct shrink_control *sc))
{
	struct shrinker *shrinker = kzalloc(sizeof(*shrinker), GFP_KERNEL);

	if (!shrinker)
		return NULL;
	shrinker->count_objects = count;
	shrinker->scan_objects = scan;
	shrinker->seeks = DEFAULT_SEEKS;
	if (register_shrinker(shrinker, "scribe-leaf")) {
		kfree(shrinker);
		return NULL;
	}
	return shrinker;
}

static inline void scribe_shrinker_free(struct shrinker *shrinker)
{
	unregister_shrinker(shrinker);
	kfree(shrinker);
}

#endif

#endif
