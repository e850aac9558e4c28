// SPDX-License-Identifier: Apache-2.0
#include "control.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// While SAs wait for packet threads to pass a quiescent point: they are asked again this often.
#define RECLAIM_MS 1

static bool watch(struct control *c, int operation, int fd, unsigned events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  return epoll_ctl(c->epoll_fd, operation, fd, &event) == 0;
}

bool control_init(struct control *c, struct engine *engine, int listen_fd, int wake_fd) {
  *c = (struct control){
      .engine = engine, .listen_fd = listen_fd, .wake_fd = wake_fd, .connection_fd = -1, .owner = geteuid()};
  c->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  return c->epoll_fd >= 0 && watch(c, EPOLL_CTL_ADD, listen_fd, EPOLLIN) && watch(c, EPOLL_CTL_ADD, wake_fd, EPOLLIN);
}

static void disconnect(struct control *c) {
  if (c->connection_fd < 0) return;
  close(c->connection_fd); // which takes it out of the epoll set
  c->connection_fd = -1;
  if (c->engine->passed_fd >= 0) close(c->engine->passed_fd);
  c->engine->passed_fd = -1;
  connection_reset(&c->engine->connection, 0);
}

// The socket's file has its permissions; this is for when it was put into a directory that all may enter.
static bool may_connect(const struct control *c, int fd) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == c->owner;
}

// The newest connection wins: an agent that restarted must not wait for its predecessor's to time out.
static void accept_one(struct control *c) {
  int fd = accept4(c->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  if (!may_connect(c, fd)) {
    close(fd);
    return;
  }
  disconnect(c);
  if (!watch(c, EPOLL_CTL_ADD, fd, EPOLLIN)) {
    close(fd);
    return;
  }
  c->watched = EPOLLIN;
  c->connection_fd = fd;
  connection_reset(&c->engine->connection, ++c->connections);
  engine_greet(c->engine);
}

// As read(); a descriptor that comes along waits for the request that is about it.
static ssize_t read_with_descriptor(struct control *c, void *to, size_t room) {
  union {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec vector = {to, room};
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(c->connection_fd, &message, MSG_CMSG_CLOEXEC);
  struct cmsghdr *came = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (came == NULL || came->cmsg_level != SOL_SOCKET || came->cmsg_type != SCM_RIGHTS) return n;
  if (c->engine->passed_fd >= 0) close(c->engine->passed_fd);
  memcpy(&c->engine->passed_fd, CMSG_DATA(came), sizeof(int));
  return n;
}

// False when the connection is over.
static bool receive(struct control *c) {
  struct connection *connection = &c->engine->connection;
  for (;;) {
    size_t room = sizeof connection->input - connection->input_used;
    if (room > 0) {
      ssize_t n = read_with_descriptor(c, connection->input + connection->input_used, room);
      if (n == 0) return false;
      if (n < 0) return errno == EAGAIN || errno == EINTR;
      connection->input_used += (size_t)n;
    }
    if (!engine_requests(c->engine)) return false;
    if (connection_pending(connection) >= CONNECTION_BUSY) return true;
  }
}

static bool send_pending(struct control *c) {
  struct connection *connection = &c->engine->connection;
  while (connection_pending(connection) > 0) {
    ssize_t n = send(c->connection_fd, connection->output + connection->output_start, connection_pending(connection),
                     MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) return false;
    connection->output_start += (size_t)n;
  }
  if (connection_pending(connection) == 0) connection->output_start = connection->output_end = 0;
  return !connection->broken;
}

// Writes what there is to write and asks epoll for what is wanted next.
static void settle(struct control *c) {
  if (c->connection_fd < 0) return;
  struct connection *connection = &c->engine->connection;
  bool was_busy = (c->watched & EPOLLIN) == 0;
  if (!send_pending(c)) return disconnect(c);
  bool busy = connection_pending(connection) >= CONNECTION_BUSY;
  // Requests that were read already and left while the output was full raise no event of their own.
  if (was_busy && !busy && (!engine_requests(c->engine) || !send_pending(c))) return disconnect(c);
  unsigned wanted = (busy ? 0u : EPOLLIN) | (connection_pending(connection) > 0 ? EPOLLOUT : 0u);
  if (wanted != c->watched && !watch(c, EPOLL_CTL_MOD, c->connection_fd, wanted)) return disconnect(c);
  c->watched = wanted;
}

static void handle(struct control *c, const struct epoll_event *event) {
  uint64_t wakes;
  if (event->data.fd == c->listen_fd) {
    accept_one(c);
  } else if (event->data.fd == c->wake_fd) {
    if (read(c->wake_fd, &wakes, sizeof wakes) < 0) return;
  } else if (event->data.fd == c->connection_fd) {
    bool readable = (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
    if (readable && !receive(c)) disconnect(c);
  }
}

void control_run(struct control *c) {
  struct engine *engine = c->engine;
  while (!engine->ending) {
    int timeout = engine_expire(engine);
    if (engine_reclaim(engine) && (timeout < 0 || timeout > RECLAIM_MS)) timeout = RECLAIM_MS;
    settle(c);
    struct epoll_event events[8];
    int count = epoll_wait(c->epoll_fd, events, ARRAY_SIZE(events), timeout);
    for (int i = 0; i < count; i++) handle(c, &events[i]);
    engine_events(engine);
  }
  settle(c);
}
