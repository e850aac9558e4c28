// SPDX-License-Identifier: Apache-2.0
// For the test of the lockdown only: built with MYELIN_PROBE the engine, once locked down, tries the system call that
// the environment variable of that name says. In the real engine this is nothing.
#pragma once

#ifdef MYELIN_PROBE
void probe_lockdown(void);
#else
static inline void probe_lockdown(void) {}
#endif
