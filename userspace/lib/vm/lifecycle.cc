// SPDX-License-Identifier: GPL-2.0
#include "vm/lifecycle.h"

#include <string>

namespace vm {

namespace {

Act act_where_absent(const meta::Vm& vm, const View& view) {
  if (vm.wanted == "off" || vm.state != "starting") return Act::say_ended;
  return view.disks_open ? Act::create : Act::nothing;
}

Act act_towards_off(const meta::Vm& vm, Seen seen) {
  if (vm.how == "stop") return Act::destroy;
  // One that stands still hears nothing.
  if (seen == Seen::paused || seen == Seen::no_space) return Act::resume;
  return seen == Seen::running ? Act::shutdown : Act::nothing;
}

}  // namespace

const char* row_state(Seen seen) { return seen == Seen::paused ? "paused" : "running"; }

Act next_act(const meta::Vm& vm, const View& view) {
  if (!view.here || (view.seen != Seen::absent && !view.this_run))
    return view.seen == Seen::absent ? Act::nothing : Act::destroy;
  if (view.held) return view.seen == Seen::running ? Act::suspend : Act::nothing;
  if (view.seen == Seen::absent) return act_where_absent(vm, view);
  if (vm.wanted == "off") return act_towards_off(vm, view.seen);
  if (view.seen == Seen::ending) return Act::nothing;
  const Seen wanted = vm.wanted == "paused" ? Seen::paused : Seen::running;
  if (view.seen == Seen::no_space) return wanted == Seen::running ? Act::resume : Act::nothing;
  if (view.seen != wanted) return wanted == Seen::paused ? Act::suspend : Act::resume;
  return vm.state == row_state(view.seen) ? Act::nothing : Act::say;
}

}  // namespace vm
