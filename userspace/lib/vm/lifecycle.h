// SPDX-License-Identifier: GPL-2.0
#pragma once

#include "meta/cluster.h"

namespace vm {

/// What a node sees of a VM's domain.
enum class Seen : uint8_t {
  absent,
  running,
  paused,
  no_space,  ///< paused, for a disk had no space or failed
  moving,    ///< paused, for its memory is on its way from here, or to here
  ending,    ///< being shut down, or ended and not gone yet
};

/// What a node does about a VM next.
enum class Act : uint8_t {
  nothing,
  create,    ///< run it
  resume,    ///< let it go on
  suspend,   ///< hold it where it is
  shutdown,  ///< ask it to power off
  destroy,   ///< end it at once
  say,       ///< tell the cluster that it is what it should be: row_state()
  migrate,   ///< begin to move it to the node that its row names
  abort,     ///< end that, if it can still be ended
  moved,     ///< tell the cluster that it is gone from here
  stays,     ///< tell the cluster that it is still here, and does not move
  say_ended  ///< tell the cluster that it runs no more
};

/// What a node knows of a VM at a moment.
struct View {
  bool here = false;      ///< its row says that this life of this node runs it
  bool this_run = false;  ///< the domain is of the row's run
  bool held = false;      ///< the node's time is over: nothing may run here until it is renewed
  bool disks_open = false;
  Seen seen = Seen::absent;
  bool arrives = false;  ///< its row says that it moves to this life of this node, as this run
  // Where its row says that it moves from here:
  bool busy = false;         ///< it is under way now
  bool target_open = false;  ///< its disks are open there
  bool target_lost = false;  ///< that life is over, or has no disks for it
};

/// What brings a VM nearer to what its row wants: a function of its arguments alone. A domain that
/// the row knows nothing of is never left running, for the VM may run elsewhere; one that arrives
/// stands still until its row says that it is here.
[[nodiscard]] Act next_act(const meta::Vm& vm, const View& view);

/// What the row's state should be where the domain is what is wanted.
[[nodiscard]] const char* row_state(Seen seen);

}  // namespace vm
