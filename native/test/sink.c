// SPDX-License-Identifier: Apache-2.0
#include "sink.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct sink sent, written;

int __real_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
ssize_t __real_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size);
ssize_t __real_writev(int fd, const struct iovec *pieces, int count);
int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags);
ssize_t __wrap_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size);
ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count);

static ssize_t keep(struct sink *sink, const struct iovec *pieces, size_t count, uint16_t segment,
                    uint8_t tos) {
  size_t length = 0;
  for (size_t i = 0; i < count; i++) length += pieces[i].iov_len;
  if (sink->fail_all_with != 0 || (segment != 0 && sink->fail_with != 0)) {
    errno = sink->fail_all_with != 0 ? sink->fail_all_with : sink->fail_with;
    return -1;
  }
  if (sink->count == SINK_PACKETS) abort();
  uint8_t *to = malloc(length == 0 ? 1 : length);
  sink->packets[sink->count++] = (struct sink_packet){to, length, segment, tos};
  for (size_t i = 0; i < count; i++) {
    memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    to += pieces[i].iov_len;
  }
  return (ssize_t)length;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
  if (fd != SINK_UDP) return __real_sendmmsg(fd, messages, count, flags);
  for (unsigned i = 0; i < count; i++) {
    struct msghdr *header = &messages[i].msg_hdr;
    uint16_t segment = 0;
    int tos = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
      if (c->cmsg_level == IPPROTO_UDP) memcpy(&segment, CMSG_DATA(c), sizeof segment);
      if (c->cmsg_level == IPPROTO_IP || c->cmsg_level == IPPROTO_IPV6) memcpy(&tos, CMSG_DATA(c), sizeof tos);
    }
    ssize_t length = keep(&sent, header->msg_iov, header->msg_iovlen, segment, (uint8_t)tos);
    if (length < 0) return i == 0 ? -1 : (int)i;
    messages[i].msg_len = (unsigned)length;
  }
  return (int)count;
}

ssize_t __wrap_sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
  if (fd != SINK_UDP) return __real_sendto(fd, data, length, flags, to, size);
  struct iovec piece = {(void *)data, length};
  return keep(&sent, &piece, 1, 0, 0);
}

ssize_t __wrap_writev(int fd, const struct iovec *pieces, int count) {
  if (fd != SINK_TUN) return __real_writev(fd, pieces, count);
  return keep(&written, pieces, (size_t)count, 0, 0);
}

static void clear(struct sink *sink) {
  for (unsigned i = 0; i < sink->count; i++) free(sink->packets[i].data);
  *sink = (struct sink){0};
}

void sink_clear(void) {
  clear(&sent);
  clear(&written);
}
