// SPDX-License-Identifier: GPL-2.0
#pragma once

namespace host {

/// Resets the machine at once, nothing flushed, nothing shut down: for a node whose life is over
/// for the cluster. What it holds must never be written, and a fresh start is the only way back.
/// Where even that fails it does nothing more, for ever; the kernel's deadline holds all I/O.
[[noreturn]] void reset_machine();

/// Whether the machine is being shut down or restarted, as systemd says; false where it does not.
bool shutting_down();

/// Takes a module out of the kernel, where nobody uses it; false where that cannot be.
bool unload_module(const char* name);

}  // namespace host
