// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <sys/mman.h>

#include "io_udp.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef UDP_ENCAP
#define UDP_ENCAP 100
#endif
#define ENCAP_ESPINUDP 2

#define BUFFER_BYTES (8 << 20)

int udp_socket_is_ip6(int fd) {
  int domain, type, protocol;
  socklen_t length = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) return -1;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0) return -1;
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) != 0) return -1;
  if (type != SOCK_DGRAM || protocol != IPPROTO_UDP || (domain != AF_INET && domain != AF_INET6)) return -1;
  return domain == AF_INET6;
}

// Beyond the system's limit where privileges allow it.
static void grow_buffer(int fd, int option, int forced_option) {
  int bytes = BUFFER_BYTES;
  if (setsockopt(fd, SOL_SOCKET, forced_option, &bytes, sizeof bytes) != 0)
    setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes);
}

bool udp_kernel_esp(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  return getsockopt(fd, IPPROTO_UDP, UDP_ENCAP, &type, &length) == 0 && type == ENCAP_ESPINUDP;
}

bool udp_configure(int fd, bool *gro) {
  int ip6 = udp_socket_is_ip6(fd), on = 1;
  if (ip6 < 0) {
    errno = ENOTSOCK;
    return false;
  }
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) return false; // both threads sleep in the socket
  grow_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE);
  grow_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE);
  // The kernel's ESP would take what it coalesced for one packet.
  *gro = !udp_kernel_esp(fd) && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
  // Don't-fragment on every outer packet. PROBE rather than DO: the path MTU that ICMP claims is not heeded, since anyone
  // can claim one; the pods' MTU is set so that outer packets fit.
  // What routers do to the outer header has to be known (RFC 6040).
  if (setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof on) != 0 && !ip6) return false;
  if (ip6 && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on) != 0) return false;
  int probe = IP_PMTUDISC_PROBE;
  if (setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe) != 0 && !ip6) return false;
  probe = IPV6_PMTUDISC_PROBE;
  return !ip6 || setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe, sizeof probe) == 0;
}

bool udp_in_init(struct udp_in *in, int fd) {
  memset(in, 0, sizeof *in);
  in->fd = fd;
  in->ip6 = udp_socket_is_ip6(fd) == 1;
  in->slots = mmap(NULL, (size_t)UDP_IN_SLOTS * UDP_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (in->slots == MAP_FAILED) return false;
  for (int i = 0; i < UDP_IN_SLOTS; i++) in->vectors[i] = (struct iovec){in->slots + (size_t)i * UDP_SLOT, UDP_SLOT};
  return true;
}

int udp_in_receive(struct udp_in *in, bool wait) {
  for (int i = 0; i < UDP_IN_SLOTS; i++)
    in->headers[i].msg_hdr = (struct msghdr){
        .msg_name = &in->senders[i],
        .msg_namelen = sizeof in->senders[i],
        .msg_iov = &in->vectors[i],
        .msg_iovlen = 1,
        .msg_control = in->control[i],
        .msg_controllen = sizeof in->control[i],
    };
  return recvmmsg(in->fd, in->headers, UDP_IN_SLOTS, wait ? MSG_WAITFORONE : MSG_DONTWAIT, NULL);
}

struct udp_received udp_in_message(const struct udp_in *in, int index) {
  struct mmsghdr *header = (struct mmsghdr *)&in->headers[index];
  struct udp_received received = {in->slots + (size_t)index * UDP_SLOT, header->msg_len, header->msg_len, 0};
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&header->msg_hdr); c != NULL; c = CMSG_NXTHDR(&header->msg_hdr, c)) {
    int value = 0;
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) received.tos = *CMSG_DATA(c);
    if (c->cmsg_len < CMSG_LEN(sizeof value)) continue;
    memcpy(&value, CMSG_DATA(c), sizeof value);
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) received.tos = (uint8_t)value;
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO && value > 0) received.segment = (uint32_t)value;
  }
  return received;
}

struct underlay udp_in_sender(const struct udp_in *in, int index) {
  const struct sockaddr_in6 *ip6 = &in->senders[index];
  if (in->ip6) return (struct underlay){addr_from_ip6(ip6->sin6_addr.s6_addr), __builtin_bswap16(ip6->sin6_port)};
  struct sockaddr_in ip4;
  memcpy(&ip4, ip6, sizeof ip4);
  return (struct underlay){addr_from_ip4((const uint8_t *)&ip4.sin_addr), __builtin_bswap16(ip4.sin_port)};
}

bool udp_peer_address(struct peer *peer, struct underlay underlay, bool ip6_socket) {
  memset(peer, 0, sizeof *peer);
  peer->underlay = underlay;
  if (underlay.port == 0) return false;
  if (ip6_socket) {
    // An IPv4 peer is reached through its mapped address (RFC 3493 section 3.7).
    peer->address.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = __builtin_bswap16(underlay.port)};
    memcpy(&peer->address.in6.sin6_addr, &underlay.address, sizeof underlay.address);
    peer->length = sizeof peer->address.in6;
    return true;
  }
  if (!addr_is_ip4(underlay.address)) return false;
  peer->address.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = __builtin_bswap16(underlay.port)};
  memcpy(&peer->address.in.sin_addr, (const uint8_t *)&underlay.address + 12, 4);
  peer->length = sizeof peer->address.in;
  return true;
}
