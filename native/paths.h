// SPDX-License-Identifier: Apache-2.0
// What is known of the ways to peers: how large packets of the underlay may be. Control thread only.
#pragma once

#include "common.h"
#include "protocol.h"

#define PATHS_MAX 4096

struct paths {
  uint32_t fallback; // MTU of the ways that are not listed; 0: no limit
  unsigned count;
  struct path {
    struct addr address;
    uint32_t mtu;
  } paths[PATHS_MAX];
};

// The largest inner packet on the way to there.
uint16_t paths_most(const struct paths *paths, const struct underlay *peer);
// Notes an MTU; 0 forgets it. All zeros stands for every address that is not listed.
enum message_status paths_set(struct paths *paths, struct addr address, uint32_t mtu);
