// SPDX-License-Identifier: Apache-2.0
#include "paths.h"

#include "mtu.h"

static unsigned find(const struct paths *paths, struct addr address) {
  unsigned at = 0;
  while (at < paths->count && !addr_equal(paths->paths[at].address, address)) at++;
  return at;
}

uint16_t paths_most(const struct paths *paths, const struct underlay *peer) {
  unsigned at = find(paths, peer->address);
  uint32_t mtu = at < paths->count ? paths->paths[at].mtu : paths->fallback;
  return mtu == 0 ? MTU_NO_LIMIT : mtu_inner(mtu, addr_is_ip4(peer->address));
}

enum message_status paths_set(struct paths *paths, struct addr address, uint32_t mtu) {
  static const struct addr every;
  if (mtu != 0 && mtu < MTU_LEAST) return STATUS_INVALID;
  if (addr_equal(address, every)) {
    paths->fallback = mtu;
    return STATUS_OK;
  }
  unsigned at = find(paths, address);
  if (mtu == 0) {
    if (at < paths->count) paths->paths[at] = paths->paths[--paths->count];
    return STATUS_OK;
  }
  if (at == PATHS_MAX) return STATUS_FULL;
  if (at == paths->count) paths->count++;
  paths->paths[at] = (struct path){address, mtu};
  return STATUS_OK;
}
