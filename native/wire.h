// SPDX-License-Identifier: Apache-2.0
// Between the control protocol's structs and the engine's own values.
#pragma once

#include "common.h"
#include "protocol.h"
#include "sa.h"

static inline struct pair pair_from_wire(const struct wire_selector *wire) {
  return (struct pair){.local = addr_from_ip6(wire->local), .remote = addr_from_ip6(wire->remote)};
}

static inline void pair_to_wire(struct wire_selector *wire, const struct pair *pair) {
  memcpy(wire->local, &pair->local, sizeof wire->local);
  memcpy(wire->remote, &pair->remote, sizeof wire->remote);
}

static inline struct underlay underlay_from_wire(const struct wire_underlay *wire) {
  return (struct underlay){.address = addr_from_ip6(wire->address), .port = wire->port};
}

static inline void underlay_to_wire(struct wire_underlay *wire, const struct underlay *underlay) {
  memcpy(wire->address, &underlay->address, sizeof wire->address);
  wire->port = underlay->port;
}

static inline void sa_id_to_wire(struct wire_sa_id *wire, const struct sa *sa) {
  wire->direction = sa->direction;
  wire->spi = sa->spi;
  underlay_to_wire(&wire->peer, &atomic_load(&sa->peer)->underlay);
}
