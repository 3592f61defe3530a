/* SPDX-License-Identifier: GPL-2.0 */
/* Every bound and timeout of the module. */
#ifndef SCRIBE_BOUNDS_H
#define SCRIBE_BOUNDS_H

#define SCRIBE_CONN_DEPTH		128	/* requests in flight on one connection */
#define SCRIBE_PUSH_BYTES		16384	/* of data, at most, that a submitter sends */
#define SCRIBE_PUSH_LEGS		4	/* that it sends at once, others' as well */
#define SCRIBE_CONN_VECS		64	/* pieces of data handed to a socket at once */
#define SCRIBE_CONNS_PER_PEER		8	/* initiator connections to one peer */
#define SCRIBE_TARGET_DEPTH		64	/* requests that a target serves at once */
#define SCRIBE_PING_MS			1000	/* between two PINGs of a connection */
#define SCRIBE_PEER_TIMEOUT_MS		8000	/* silence that ends a connection with requests */
#define SCRIBE_CRC_RETRIES		3	/* sends of a write whose data CRC did not match */

#define SCRIBE_LARGE_SECTORS		128	/* from here a write has its own extent */
#define SCRIBE_FLUSH_MS			1000	/* age of data that starts a flush */
#define SCRIBE_UNMAPS_MAX		1024	/* discards of one VSD under way or parked */
#define SCRIBE_DIRTY_MAX		4096	/* extents that start a flush */
#define SCRIBE_RESERVE_LOW		64	/* extents in stock: below, ask the daemon */
#define SCRIBE_RESERVE_TARGET		192	/* what it is asked to fill up to */
#define SCRIBE_RESERVE_MAX		4096
#define SCRIBE_NOSPACE_MS		10000	/* how long a write waits in a full pool */
#define SCRIBE_INTENT_IDLE_MS		60000	/* without a write: given up */
#define SCRIBE_INTENT_SHORT_MS		2000	/* the same where there are many */
#define SCRIBE_INTENT_MANY		256	/* leaves of one VSD with intent */
#define SCRIBE_INTENT_SPARE		64	/* fewer to go: all are given up */
#define SCRIBE_WORK_MAX			1024	/* records in one answer to WORK_GET */
#define SCRIBE_LEAF_WANTED_MAX		256	/* leaves of one VSD listed there at once */
#define SCRIBE_RELEASE_MS		30000	/* last flush of a device that is being removed */

#define SCRIBE_OP_POOL			2048	/* mempool reserve: guaranteed progress */

#endif
