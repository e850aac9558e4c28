// SPDX-License-Identifier: Apache-2.0
// The UDP socket, in batches: equal-sized ESP packets for one peer go out as one message that the kernel (or the card)
// cuts, UDP_SEGMENT; what the kernel joined on the way in comes as one message, UDP_GRO.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "common.h"
#include "sa.h"
#include "worker.h"

#define UDP_SLOT 65536
#define UDP_OUT_SLOTS 16
#define UDP_IN_SLOTS 8
#define UDP_MAX_PAYLOAD 65507 // IPv4: 65,535 − 20 − 8
#define UDP_MAX_SEGMENTS 64   // of one message (UDP_MAX_SEGMENTS of Linux before 6.9)

// One message that is being filled.
struct udp_message {
  const struct peer *peer;
  uint32_t used;
  uint16_t segment; // size of all packets but the last
  uint16_t count;
  uint8_t tos; // of the outer packets' headers
  uint8_t lane; // the receiver's thread that they are for, as their SPIs say (steer.h)
  bool closed; // its last packet is shorter: no more can follow
};

// Packets on their way to the socket. One thread's.
struct udp_out {
  int fd;
  struct worker *worker;
  uint8_t *slots; // message i lies in slot i
  unsigned count;
  size_t pending; // bytes
  uint8_t tos, lane; // of what is queued from now on: part of what a message is
  struct udp_message messages[UDP_OUT_SLOTS];
};

// Prepares the socket: GRO, large buffers, don't-fragment. False with errno. `gro` says whether the kernel coalesces.
bool udp_configure(int fd, bool *gro);
// Whether the kernel takes ESP out of the socket for its own security associations (UDP_ENCAP).
bool udp_kernel_esp(int fd);
// False when memory ran out.
bool udp_out_init(struct udp_out *out, int fd, struct worker *worker);
// Room for a packet of `length` bytes to `peer`, with `out->tos` and `out->lane`, which counts as queued; fill it before the next
// call. May send what was queued before. Packets of one peer and lane, so those of one SA, keep their order.
uint8_t *udp_out_reserve(struct udp_out *out, const struct peer *peer, uint32_t length);
// Sends all that is queued.
void udp_out_flush(struct udp_out *out);

// One message received.
struct udp_received {
  uint8_t *data;
  uint32_t length;
  uint32_t segment; // size of all packets in it but the last
  uint8_t tos;      // of their outer headers: the kernel joins equal ones only
};

// Packets from the socket. One thread's.
struct udp_in {
  int fd;
  bool ip6; // the socket's own family
  uint8_t *slots;
  struct mmsghdr headers[UDP_IN_SLOTS];
  struct iovec vectors[UDP_IN_SLOTS];
  struct sockaddr_in6 senders[UDP_IN_SLOTS]; // large enough for either family
  _Alignas(8) uint8_t control[UDP_IN_SLOTS][64];
};

bool udp_in_init(struct udp_in *in, int fd);
// Takes what there is, and returns how many messages; -1 with errno. Sleeps until there is something if `wait`.
int udp_in_receive(struct udp_in *in, bool wait);
struct udp_received udp_in_message(const struct udp_in *in, int index);
// Who sent it.
struct underlay udp_in_sender(const struct udp_in *in, int index);

// The socket address by which a socket of this family reaches `underlay`; false if it cannot.
bool udp_peer_address(struct peer *peer, struct underlay underlay, bool ip6_socket);
// Whether the socket is an IPv6 one; -1 if it is no UDP socket.
int udp_socket_is_ip6(int fd);
