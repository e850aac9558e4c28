// SPDX-License-Identifier: Apache-2.0
// The control protocol's requests.
#include <stdlib.h>

#include "../inet.h"
#include "../wire.h"
#include "bed.h"
#include "check.h"
#include "talk.h"

static struct engine *connected(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct wire_hello hello;
  struct message message = talk_expect(e, MSG_HELLO);
  CHECK(message.length == sizeof hello);
  memcpy(&hello, message.payload, sizeof hello);
  CHECK(hello.version == PROTOCOL_VERSION && hello.instance == e->instance);
  return e;
}

static enum message_status install(struct engine *e, struct wire_install m) {
  talk_send_install(e, &m);
  return talk_status(e, m.id);
}

static void installing(void) {
  struct engine *e = connected();
  struct wire_install in = talk_install(DIRECTION_IN, 300), out = talk_install(DIRECTION_OUT, 300);
  CHECK(install(e, in) == STATUS_OK && install(e, out) == STATUS_OK);
  CHECK(e->table.count[0] == 1 && e->table.count[1] == 1);
  CHECK(install(e, in) == STATUS_EXISTS && install(e, out) == STATUS_EXISTS);
  struct wire_install other = out; // the same SPI chosen by another peer
  other.sa.peer.address[15] = 9;
  CHECK(install(e, other) == STATUS_OK);

  struct wire_install bad;
#define INVALID(from, change) (bad = (from), bad.sa.spi = 301, change, CHECK(install(e, bad) == STATUS_INVALID))
  INVALID(in, bad.sa.spi = 255);
  INVALID(in, bad.sa.direction = 2);
  INVALID(in, bad.selector_count = 0);
  INVALID(in, bad.selector_count = 3);
  INVALID(in, bad.selectors[1] = bad.selectors[0]);
  INVALID(in, memcpy(bad.selectors[0].local, bad.selectors[1].local, 16));
  INVALID(in, bad.replay_window = 1000);
  INVALID(in, bad.replay_window = 32);
  INVALID(in, bad.replay_window = 65536);
  INVALID(in, bad.sa.peer.port = 0);
  INVALID(out, bad.sa.peer.address[0] = 0x20); // an IPv6 peer, an IPv4 socket
  CHECK(e->table.count[0] == 1 && e->table.count[1] == 2);
}

static void listing(void) {
  struct engine *e = connected();
  enum { COUNT = PROTOCOL_PAGE * 2 + 7 };
  for (uint32_t i = 0; i < COUNT; i++) CHECK(install(e, talk_install(DIRECTION_IN, 1000 + i)) == STATUS_OK);
  struct wire_list list = {.id = 7};
  uint32_t next = 1000;
  for (bool more = true; more;) {
    talk_send(e, MSG_LIST, &list, sizeof list);
    CHECK(engine_requests(e));
    struct message message;
    while (talk_receive(e, &message) && message.type == MSG_SA) {
      struct wire_sa sa;
      memcpy(&sa, message.payload, sizeof sa);
      CHECK(sa.id == 7 && sa.sa.spi == next++ && sa.serial > list.after && sa.selector_count == 2);
      CHECK(message.length == sizeof sa + DROP_COUNT * 4 + 4);
      CHECK(memcmp(message.payload + message.length - 4, "note", 4) == 0);
      // Neither key nor salt may be anywhere in it.
      for (size_t at = 0; at + 8 <= message.length; at++) {
        uint8_t key[8];
        for (uint8_t k = 0; k < 8; k++) key[k] = (uint8_t)(sa.sa.spi + k);
        CHECK(memcmp(message.payload + at, key, 8) != 0);
      }
      list.after = sa.serial;
    }
    struct wire_done done;
    CHECK(message.type == MSG_DONE);
    memcpy(&done, message.payload, sizeof done);
    more = done.more;
  }
  CHECK(next == 1000 + COUNT);
}

static void removing(void) {
  struct engine *e = connected();
  struct wire_install m = talk_install(DIRECTION_OUT, 300);
  CHECK(install(e, m) == STATUS_OK);
  struct wire_remove remove = {.id = 1, .sa = m.sa};
  remove.sa.peer.port++;
  talk_send(e, MSG_REMOVE, &remove, sizeof remove);
  CHECK(talk_status(e, 1) == STATUS_NO_SUCH_SA);
  remove.sa = m.sa;
  remove.id = 2;

  // The answer has to wait for every thread that may still use the key.
  rcu_quiescent(&e->rcu, &e->workers[WORKER_OUTBOUND].reader);
  talk_send(e, MSG_REMOVE, &remove, sizeof remove);
  CHECK(engine_requests(e) && engine_reclaim(e));
  struct message message;
  CHECK(!talk_receive(e, &message) && table_outbound(&e->table, &bed_pair4) == NULL);
  rcu_offline(&e->workers[WORKER_OUTBOUND].reader);
  CHECK(talk_status(e, 2) == STATUS_OK);
}

static void moving_a_peer(void) {
  struct engine *e = connected();
  struct wire_install m = talk_install(DIRECTION_OUT, 300);
  CHECK(install(e, m) == STATUS_OK);
  struct wire_move_peer move = {.id = 1, .sa = m.sa, .peer = m.sa.peer};
  move.peer.address[15] = 77;
  talk_send(e, MSG_MOVE_PEER, &move, sizeof move);
  CHECK(talk_status(e, 1) == STATUS_OK);
  CHECK(table_find(&e->table, &m.sa) == NULL);
  struct wire_sa_id moved = m.sa;
  moved.peer = move.peer;
  struct sa *sa = table_find(&e->table, &moved);
  CHECK(sa != NULL && ((uint8_t *)&atomic_load(&sa->peer)->address.in.sin_addr)[3] == 77);
  talk_send(e, MSG_MOVE_PEER, &move, sizeof move);
  CHECK(talk_status(e, 1) == STATUS_NO_SUCH_SA);
}

static void malformed_requests_end_the_connection(void) {
  const uint8_t types[] = {MSG_INSTALL, MSG_REMOVE, MSG_MOVE_PEER, MSG_LIST, MSG_STATISTICS, MSG_FAIL, MSG_SHUTDOWN,
                           MSG_RELEASE};
  const size_t right[] = {sizeof(struct wire_install), sizeof(struct wire_remove), sizeof(struct wire_move_peer),
                          sizeof(struct wire_list),    sizeof(struct wire_request), sizeof(struct wire_fail),
                          sizeof(struct wire_request), sizeof(struct wire_release)};
  uint8_t payload[1024] = {0};
  for (size_t i = 0; i < ARRAY_SIZE(types); i++)
    for (int off = -1; off <= 1; off += 2) {
      struct engine *e = connected();
      talk_send(e, types[i], payload, right[i] + (size_t)off);
      CHECK(!engine_requests(e));
    }
  for (int type = 0; type < 256; type++) {
    if (type >= MSG_INSTALL && type <= MSG_RELEASE) continue;
    struct engine *e = connected();
    talk_send(e, (uint8_t)type, payload, 4);
    CHECK(!engine_requests(e));
  }
}

static void statistics(void) {
  struct engine *e = connected();
  COUNT(e->workers[WORKER_INBOUND].counters.drops[DROP_REPLAYED], 3);
  COUNT(e->workers[WORKER_OUTBOUND].counters.sealed_packets, 5);
  struct wire_request request = {.id = 9};
  talk_send(e, MSG_STATISTICS, &request, sizeof request);
  CHECK(engine_requests(e));
  struct wire_counters counters;
  struct message message = talk_expect(e, MSG_COUNTERS);
  memcpy(&counters, message.payload, sizeof counters);
  CHECK(counters.id == 9 && counters.sealed_packets == 5 && counters.drop_count == DROP_COUNT);
  CHECK(message.length ==
        sizeof counters + DROP_COUNT * sizeof(uint64_t) + counters.detail_count * sizeof(struct wire_detail));
  uint64_t replayed;
  memcpy(&replayed, message.payload + sizeof counters + DROP_REPLAYED * sizeof replayed, sizeof replayed);
  CHECK(replayed == 3);
}

static void a_reader_that_does_not_read(void) {
  struct engine *e = connected();
  for (uint32_t i = 0; i < PROTOCOL_PAGE; i++) CHECK(install(e, talk_install(DIRECTION_IN, 1000 + i)) == STATUS_OK);
  struct wire_list list = {.id = 7};
  unsigned asked = 0;
  for (unsigned i = 0; i < 1000; i++) {
    if (e->connection.input_used + 64 > sizeof e->connection.input) break;
    talk_send(e, MSG_LIST, &list, sizeof list);
    CHECK(engine_requests(e));
    asked++;
  }
  // It stops to take requests long before memory is a concern, and takes them up again when it is read.
  CHECK(connection_pending(&e->connection) < CONNECTION_BUSY + (1 << 20) && e->connection.input_used > 0);
  unsigned answered = 0;
  for (struct message message; talk_receive(e, &message) || e->connection.input_used > 0;) {
    if (message.type == MSG_DONE) answered++;
    message.type = 0;
    CHECK(engine_requests(e));
  }
  CHECK(answered == asked);
}

static void keepalives_are_one_byte(void) {
  struct engine *e = bed_engine();
  talk_connect(e);
  struct wire_keepalive m = {.id = 5, .peer = {.address = {[10] = 0xff, [11] = 0xff, 192, 0, 2, 1}, .port = 4500}};
  talk_send(e, MSG_KEEPALIVE, &m, sizeof m);
  CHECK(talk_status(e, 5) == STATUS_OK);
  CHECK(sent.count == 1 && sent.packets[0].length == 1 && sent.packets[0].data[0] == 0xff);
  m.peer.port = 0;
  talk_send(e, MSG_KEEPALIVE, &m, sizeof m);
  CHECK(talk_status(e, 5) == STATUS_INVALID && sent.count == 1);
}

const struct test requests_tests[] = {
    {"requests: install, once, and only what makes sense", installing},
    {"requests: list, in pages, without keys", listing},
    {"requests: remove, answered when the key is gone", removing},
    {"requests: move a peer", moving_a_peer},
    {"requests: malformed ones end the connection", malformed_requests_end_the_connection},
    {"requests: statistics", statistics},
    {"requests: an agent that does not read is not served more", a_reader_that_does_not_read},
    {"requests: a keepalive is one byte to where it is asked for", keepalives_are_one_byte},
    {0},
};
