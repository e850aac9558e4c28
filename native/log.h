// SPDX-License-Identifier: Apache-2.0
// One JSON line on standard error, in the form of the agent's own log. For starting and ending only.
#pragma once

#define LOG_INFO 30
#define LOG_WARN 40
#define LOG_FATAL 60

// `error` is an errno, or 0.
void log_line(int level, const char *message, int error);
// Logs and ends the process with status 1.
_Noreturn void log_exit(const char *message, int error);
