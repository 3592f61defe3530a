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

// While libvirt moves it. What holds the guest meanwhile is its memory's last part, or somebody,
// who is not to be taken for that: it goes on when the move has ended.
Act act_while_busy(const meta::Vm& vm, const View& view) {
  const bool held = vm.wanted == "running" && view.seen == Seen::paused;
  const bool over = vm.move != "moving" || view.target_lost || view.held || held;
  return over ? Act::abort : Act::nothing;
}

Act act_before_move(const meta::Vm& vm, const View& view) {
  if (vm.move != "preparing" || view.target_lost) return Act::stays;
  return view.target_open ? Act::migrate : Act::nothing;
}

}  // namespace

const char* row_state(Seen seen) {
  return seen == Seen::paused || seen == Seen::moving ? "paused" : "running";
}

Act next_act(const meta::Vm& vm, const View& view) {
  if (view.arrives) return view.seen == Seen::running ? Act::suspend : Act::nothing;
  if (!view.here || (view.seen != Seen::absent && !view.this_run))
    return view.seen == Seen::absent ? Act::nothing : Act::destroy;
  if (vm.to_node && view.busy) return act_while_busy(vm, view);
  if (view.held) return view.seen == Seen::running ? Act::suspend : Act::nothing;
  if (view.seen == Seen::absent && vm.to_node && vm.move != "preparing") return Act::moved;
  if (view.seen == Seen::absent) return act_where_absent(vm, view);
  if (vm.to_node && vm.move != "preparing") return Act::stays;
  // What it was before it arrived has not let go of it yet.
  if (view.seen == Seen::moving && vm.state == "arriving") return Act::nothing;
  if (vm.wanted == "off") return act_towards_off(vm, view.seen);
  if (view.seen == Seen::ending) return Act::nothing;
  const Seen wanted = vm.wanted == "paused" ? Seen::paused : Seen::running;
  if (view.seen == Seen::no_space) return wanted == Seen::running ? Act::resume : Act::nothing;
  const bool still = view.seen == Seen::paused || view.seen == Seen::moving;
  if (still != (wanted == Seen::paused)) return still ? Act::resume : Act::suspend;
  if (vm.state != row_state(view.seen)) return Act::say;
  return vm.to_node ? act_before_move(vm, view) : Act::nothing;
}

}  // namespace vm
