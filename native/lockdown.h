// SPDX-License-Identifier: Apache-2.0
// What the engine gives up before it looks at the first packet. Whoever takes it over finds three descriptors, no file
// system, no privileges, and system calls for moving packets only.
#pragma once

#include <stdbool.h>

// No core dumps, no other process looking in (ptrace, /proc/PID/mem), memory locking allowed where privileges reach.
bool lockdown_process(void);
// An empty, deleted directory as root; user and group nobody; no capability and no way to one. Without root the parts
// that need it are left out. After opening everything, before starting threads.
bool lockdown_privileges(void);
// The allow-list of system calls, for all threads; any other kills the process. After starting threads.
bool lockdown_calls(void);
