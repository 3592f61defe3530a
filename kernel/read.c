// SPDX-License-Identifier: GPL-2.0
/*
 * Reads: a range is cut into pieces of one segment or hole each; a piece that fails on one copy is
 * read from another.
 */
#include "io.h"
#include "plan.h"

static void read_end(struct scribe_io *io);

static void put_read(struct scribe_io *io)
{
	if (!atomic_dec_and_test(&io->pending))
		return;
	if (!list_empty(&io->retry))
		scribe_io_defer(io, read_end);
	else if (io->status == BLK_STS_AGAIN)
		scribe_io_leave_and_park(io, SCRIBE_PARK_COPY);
	else
		scribe_io_finish(io, io->status);
}

static void read_leg_done(struct scribe_leg *leg)
{
	struct scribe_io *io = leg->owner;
	unsigned long flags;

	if (leg->status) {
		if (scribe_leg_unanswered(leg->status))
			WRITE_ONCE(io->lost_leg, true);
		leg->tried |= BIT(leg->copy);
		spin_lock_irqsave(&io->retry_lock, flags);
		list_add_tail(&leg->node, &io->retry);
		spin_unlock_irqrestore(&io->retry_lock, flags);
	} else {
		scribe_extent_put(leg->extent);
		scribe_leg_free(leg);
	}
	put_read(io);
}

/* A part of the read; @tried counts as long as the extent's copies stay where they are. */
struct piece {
	struct scribe_extent *extent;
	struct scribe_source from;
	u32 pos, len, off; /* pos in the chunk */
	u8 tried, moves;
};

static void submit_piece(struct scribe_io *io, const struct piece *piece)
{
	struct scribe_leg *leg =
		scribe_leg_clone(io->bio, SCRIBE_WIRE_READ, piece->pos - io->start, piece->len);

	leg->done = read_leg_done;
	leg->owner = io;
	leg->extent = piece->extent;
	leg->disk = piece->from.disk;
	leg->life = piece->from.life;
	leg->copy = piece->from.copy;
	leg->tried = piece->tried;
	leg->moves = piece->moves;
	leg->may_push = true;
	leg->sector = (u64)piece->from.slot * SCRIBE_SLOT_SECTORS + piece->off;
	atomic_inc(&io->pending);
	scribe_disk_submit(leg);
}

/*
 * No copy is left to read from. An error only where every current copy's disk has answered with
 * one; as long as one is merely out of reach the read waits for it. Who asked for a certain copy
 * does not.
 */
static void fail_piece(struct scribe_io *io, const struct piece *piece)
{
	if (!READ_ONCE(io->vsd->read_copy) &&
	    (READ_ONCE(io->lost_leg) || scribe_plan_may_return(piece->extent, piece->tried))) {
		if (io->status != BLK_STS_IOERR)
			io->status = BLK_STS_AGAIN;
		return;
	}
	io->status = BLK_STS_IOERR;
	pr_err_ratelimited("vsd %llu: chunk %llu sector %u: no copy of extent %llu can be read\n",
			   io->vsd->id, io->chunk, piece->pos, piece->extent->id);
}

/* Under vsd->lock: what to read a piece from, if anything. */
static bool find_source(struct scribe_io *io, struct piece *piece)
{
	lockdep_assert_held(&io->vsd->lock);
	if (piece->moves != piece->extent->moves)
		piece->tried = 0;
	piece->moves = piece->extent->moves;
	return scribe_plan_source(io->vsd, piece->extent, piece->tried, &piece->from);
}

/* Tries what failed on another copy. */
static void read_end(struct scribe_io *io)
{
	struct scribe_leg *leg, *next;
	LIST_HEAD(failed);

	list_splice_init(&io->retry, &failed);
	atomic_set(&io->pending, 1);
	list_for_each_entry_safe(leg, next, &failed, node) {
		struct piece piece = {
			.extent = leg->extent,
			.pos = io->start + leg->pos,
			.len = leg->length_bytes >> SECTOR_SHIFT,
			.off = leg->sector % SCRIBE_SLOT_SECTORS,
			.tried = leg->tried,
			.moves = leg->moves,
		};
		bool found;

		scribe_leg_free(leg);
		spin_lock_irq(&io->vsd->lock);
		io->vsd->stats.read_retries++;
		found = find_source(io, &piece);
		spin_unlock_irq(&io->vsd->lock);
		if (found) {
			submit_piece(io, &piece);
			continue;
		}
		fail_piece(io, &piece);
		scribe_extent_put(piece.extent);
	}
	put_read(io);
}

static void zero_piece(struct scribe_io *io, u32 pos, u32 len)
{
	struct scribe_leg *leg = scribe_leg_clone(io->bio, SCRIBE_WIRE_READ, pos - io->start, len);

	zero_fill_bio(&leg->bio);
	scribe_leg_free(leg);
}

/* Under vsd->lock: what lies at this position, up to the end of a segment or of a hole. */
static int next_piece(struct scribe_io *io, struct scribe_leaf *leaf, u32 pos, struct piece *piece)
{
	struct scribe_segs *segs = leaf->segs[io->chunk % SCRIBE_LEAF_CHUNKS];
	u32 i = scribe_segs_find(segs, pos);
	u32 end = io->start + io->len;

	*piece = (struct piece){ .pos = pos, .len = end - pos };
	if (!segs || i == segs->nr)
		return 0;
	if (segs->seg[i].start > pos) {
		piece->len = min(end, (u32)segs->seg[i].start) - pos;
		return 0;
	}
	piece->extent = segs->seg[i].extent;
	piece->len = min(end, scribe_seg_end(&segs->seg[i])) - pos;
	piece->off = segs->seg[i].off + (pos - segs->seg[i].start);
	if (!find_source(io, piece))
		return -EIO;
	scribe_extent_get(piece->extent);
	return 0;
}

void scribe_read_run(struct scribe_io *io, struct scribe_leaf *leaf)
{
	u32 pos, end = io->start + io->len;
	struct piece piece;

	io->status = BLK_STS_OK;
	atomic_set(&io->pending, 1);
	for (pos = io->start; pos < end; pos += piece.len) {
		int err;

		spin_lock_irq(&io->vsd->lock);
		err = next_piece(io, leaf, pos, &piece);
		spin_unlock_irq(&io->vsd->lock);
		if (err)
			fail_piece(io, &piece);
		else if (piece.extent)
			submit_piece(io, &piece);
		else
			zero_piece(io, piece.pos, piece.len);
	}
	scribe_io_unpin(io);
	put_read(io);
}
