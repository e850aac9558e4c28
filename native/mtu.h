// SPDX-License-Identifier: Apache-2.0
// Packets that do not fit the underlay: how large an inner packet may be, what their senders are told, and what is done
// about those whose senders need not be told. Pure functions on memory.
#pragma once

#include "common.h"

#define MTU_NO_LIMIT UINT16_MAX
#define MTU_LEAST 576            // what path MTUs are believed down to (RFC 791: every host takes that much)
#define MTU_COMPLAINT_MAX 1280   // the longest error; RFC 4443 section 2.4 (c)
#define IP6_LEAST_MTU 1280       // RFC 8200 section 5

// The largest inner packet whose ESP in UDP fits an underlay of `mtu` bytes.
uint16_t mtu_inner(uint32_t mtu, bool outer_ip4);

// Lowers the MSS that a TCP SYN announces to what fits `most` bytes of IP packet, and mends its checksum. Leaves everything
// else alone, also what is malformed.
void mtu_clamp_mss(uint8_t *packet, size_t length, uint32_t most);

// Whether an IPv4 packet may be cut (its sender did not say "don't fragment") and can be: one with options is not.
bool mtu_may_fragment(const uint8_t *packet);

// Writes the fragment of an IPv4 packet that begins at `*at` bytes of payload, and moves `*at` on. Returns its length; 0 at
// the end.
size_t mtu_fragment(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most, uint32_t *at);

// Writes what the sender of a packet that does not fit is told: "fragmentation needed" (RFC 792, 1191) or "packet too big"
// (RFC 4443), as if by the packet's destination: its pod's own tunnel is where the packet would come out. Returns the
// length, at most MTU_COMPLAINT_MAX; 0 where nothing may be said (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
size_t mtu_complaint(uint8_t *to, const uint8_t *packet, size_t length, uint32_t most);
