// SPDX-License-Identifier: GPL-2.0
#include "segs.h"

u32 scribe_segs_find(const struct scribe_segs *segs, u32 pos)
{
	u32 low = 0;
	u32 high = segs ? segs->nr : 0;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (scribe_seg_end(&segs->seg[mid]) > pos)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

const struct scribe_seg *scribe_segs_cover(const struct scribe_segs *segs, u32 start, u32 len)
{
	u32 i = scribe_segs_find(segs, start);

	if (!segs || i == segs->nr)
		return NULL;
	if (segs->seg[i].start > start || scribe_seg_end(&segs->seg[i]) < start + len)
		return NULL;
	return &segs->seg[i];
}

static void append(struct scribe_segs *out, struct scribe_extent *extent, u32 start, u32 len,
		   u32 off)
{
	struct scribe_seg *last = out->nr ? &out->seg[out->nr - 1] : NULL;

	if (!len)
		return;
	if (last && last->extent == extent && scribe_seg_end(last) == start &&
	    (u32)last->off + last->len == off) {
		last->len += len;
		return;
	}
	out->seg[out->nr++] = (struct scribe_seg){
		.extent = extent,
		.start = start,
		.len = len,
		.off = off,
	};
}

int scribe_segs_splice(const struct scribe_segs *old, u32 start, u32 len,
		       struct scribe_extent *extent, u32 off, struct scribe_segs *out)
{
	u32 end = start + len;
	u32 nr = old ? old->nr : 0;
	bool placed = false;
	u32 i;

	if (!len || start >= SCRIBE_CHUNK_SECTORS || len > SCRIBE_CHUNK_SECTORS - start ||
	    (extent && (off >= SCRIBE_CHUNK_SECTORS || len > SCRIBE_CHUNK_SECTORS - off)))
		return -EINVAL;
	if (out->capacity < nr + SCRIBE_SEGS_GROWTH)
		return -ENOSPC;

	out->nr = 0;
	for (i = 0; i < nr; i++) {
		const struct scribe_seg *seg = &old->seg[i];
		u32 seg_end = scribe_seg_end(seg);

		if (seg->start < start)
			append(out, seg->extent, seg->start, min(seg_end, start) - seg->start,
			       seg->off);
		if (!placed && seg_end > start) {
			if (extent)
				append(out, extent, start, len, off);
			placed = true;
		}
		if (seg_end > end) {
			u32 from = max((u32)seg->start, end);

			append(out, seg->extent, from, seg_end - from,
			       seg->off + (from - seg->start));
		}
	}
	if (!placed && extent)
		append(out, extent, start, len, off);
	return 0;
}

bool scribe_segs_valid(const struct scribe_segs *segs)
{
	u32 pos = 0;
	u32 i;

	if (segs->nr > SCRIBE_MAX_SEGS)
		return false;
	for (i = 0; i < segs->nr; i++) {
		const struct scribe_seg *seg = &segs->seg[i];

		if (!seg->len || seg->start < pos || scribe_seg_end(seg) > SCRIBE_CHUNK_SECTORS ||
		    (u32)seg->off + seg->len > SCRIBE_CHUNK_SECTORS)
			return false;
		pos = scribe_seg_end(seg);
	}
	return true;
}
