// SPDX-License-Identifier: Apache-2.0
// The control thread: one connection of the agent at a time, events to it, timers, and freeing what packet threads are
// done with.
#pragma once

#include "engine.h"

struct control {
  struct engine *engine;
  int listen_fd;
  int epoll_fd;
  int wake_fd;       // eventfd that packet threads write
  int connection_fd; // -1 when there is none
  unsigned owner;    // the only user, besides root, that may connect: whoever started the engine
  uint64_t connections;
  unsigned watched;  // epoll events asked for on the connection
};

// False with errno.
bool control_init(struct control *control, struct engine *engine, int listen_fd, int wake_fd);
// Runs until MSG_SHUTDOWN.
void control_run(struct control *control);
