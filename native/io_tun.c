// SPDX-License-Identifier: Apache-2.0
#include "io_tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

// Later than the headers of Debian 12 (Linux 6.2).
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

bool tun_configure(struct tun *tun, int fd) {
  struct ifreq request = {0};
  *tun = (struct tun){.fd = fd};
  if (ioctl(fd, TUNGETIFF, &request) != 0) return false;
  if ((request.ifr_flags & (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)) != (IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)) {
    errno = EINVAL;
    return false;
  }
  int header = sizeof(struct virtio_net_hdr);
  if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0) return false;
  unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  tun->udp_offload = ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) == 0;
  if (!tun->udp_offload && ioctl(fd, TUNSETOFFLOAD, offloads) != 0) return false;
  // Reads sleep by themselves, which saves a poll() for each wake-up; those that may not say so one by one.
  int flags = fcntl(fd, F_GETFL);
  tun->read_nowait = true;
  return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0;
}

ssize_t tun_read(struct tun *tun, uint8_t *buffer, bool wait) {
  struct iovec vector = {buffer, TUN_BUFFER};
  if (wait) return read(tun->fd, buffer, TUN_BUFFER);
  if (tun->read_nowait) {
    ssize_t length = preadv2(tun->fd, &vector, 1, -1, RWF_NOWAIT);
    if (length >= 0 || errno != EOPNOTSUPP) return length;
    tun->read_nowait = false; // an old kernel: ask first instead
  }
  struct pollfd ready = {.fd = tun->fd, .events = POLLIN};
  if (poll(&ready, 1, 0) == 1) return read(tun->fd, buffer, TUN_BUFFER);
  errno = EAGAIN;
  return -1;
}

static ssize_t write_whole(const struct tun *tun, const struct iovec *pieces, int count) {
  ssize_t written;
  do {
    written = writev(tun->fd, pieces, count);
  } while (written < 0 && errno == EINTR);
  return written;
}

bool tun_give_back(const struct tun *tun, uint8_t *packet, size_t length) {
  return write_whole(tun, &(struct iovec){packet, length}, 1) >= 0;
}

void tun_write(const struct tun *tun, struct coalescer *coalescer, struct worker *worker) {
  for (unsigned i = 0; i < coalescer->count; i++) {
    struct bundle *bundle = &coalescer->bundles[i];
    coalesce_finish(bundle);
    ssize_t written = write_whole(tun, bundle->pieces, (int)bundle->count + 1);
    COUNT(worker->counters.tun_writes, 1);
    COUNT(worker->counters.tun_segments_coalesced, bundle->count - 1);
    if (written < 0) worker_drop(worker, DROP_TUN_WRITE, bundle->count, &(struct dropped){0});
  }
  coalescer->count = 0;
}
