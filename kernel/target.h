/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SCRIBE_TARGET_H
#define SCRIBE_TARGET_H

int scribe_dm_init(void);
void scribe_dm_exit(void);

#endif
