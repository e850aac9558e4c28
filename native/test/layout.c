// SPDX-License-Identifier: Apache-2.0
// Prints the control protocol as the compiler sees it, for the test that holds src/tunnel/engine/protocol.ts to it.
#include "layout.h"

#include <stdio.h>

#include "../protocol.h"
#include "../stats.h"

#define SIZE(name, type) printf("size %s %zu\n", name, sizeof(struct type))
#define MESSAGE(name, value) printf("message %s %d\n", name, value)
#define DROP(name) printf("drop %s %d\n", #name, DROP_##name)

void layout_print(void) {
  printf("version protocol %d\n", PROTOCOL_VERSION);
  SIZE("header", wire_header);
  SIZE("selector", wire_selector);
  SIZE("underlay", wire_underlay);
  SIZE("lifetimes", wire_lifetimes);
  SIZE("saId", wire_sa_id);
  SIZE("install", wire_install);
  SIZE("sa", wire_sa);
  SIZE("counters", wire_counters);
  SIZE("detail", wire_detail);
  SIZE("hello", wire_hello);
  MESSAGE("install", MSG_INSTALL);
  MESSAGE("remove", MSG_REMOVE);
  MESSAGE("movePeer", MSG_MOVE_PEER);
  MESSAGE("list", MSG_LIST);
  MESSAGE("statistics", MSG_STATISTICS);
  MESSAGE("fail", MSG_FAIL);
  MESSAGE("shutdown", MSG_SHUTDOWN);
  MESSAGE("release", MSG_RELEASE);
  MESSAGE("pathMtu", MSG_PATH_MTU);
  MESSAGE("keepalive", MSG_KEEPALIVE);
  MESSAGE("keepSocket", MSG_KEEP_SOCKET);
  MESSAGE("done", MSG_DONE);
  MESSAGE("sa", MSG_SA);
  MESSAGE("counters", MSG_COUNTERS);
  MESSAGE("hello", MSG_HELLO);
  MESSAGE("acquire", MSG_ACQUIRE);
  MESSAGE("expiry", MSG_EXPIRY);
  MESSAGE("unknownSpi", MSG_UNKNOWN_SPI);
  MESSAGE("drop", MSG_DROP);
  MESSAGE("moved", MSG_MOVED);
  DROP(UDP_TOO_SHORT);
  DROP(NON_ESP);
  DROP(UNKNOWN_SPI);
  DROP(REPLAYED);
  DROP(BEHIND_WINDOW);
  DROP(AUTHENTICATION);
  DROP(BAD_LENGTH);
  DROP(BAD_PADDING);
  DROP(BAD_NEXT_HEADER);
  DROP(BAD_INNER);
  DROP(SELECTOR);
  DROP(EXPIRED_IN);
  DROP(TUN_WRITE);
  DROP(TUN_MALFORMED);
  DROP(TUN_OFFLOAD);
  DROP(HOLD_PAIR_FULL);
  DROP(HOLD_TOTAL_FULL);
  DROP(HOLD_EXPIRED);
  DROP(HOLD_FAILED);
  DROP(UDP_SEND);
  DROP(TOO_BIG);
  DROP(DUMMY);
  DROP(TUN_NOT_UNICAST);
  DROP(ECN);
  DROP(HANDOFF_FULL);
  DROP(COUNT);
}
