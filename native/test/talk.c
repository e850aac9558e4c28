// SPDX-License-Identifier: Apache-2.0
#include "talk.h"

#include "../wire.h"
#include "bed.h"
#include "check.h"

void talk_connect(struct engine *e) {
  static uint64_t number;
  connection_reset(&e->connection, ++number);
  engine_greet(e);
}

void talk_send(struct engine *e, uint8_t type, const void *payload, size_t length) {
  struct connection *c = &e->connection;
  struct wire_header header = {.length = (uint32_t)length + 1, .type = type};
  CHECK(c->input_used + sizeof header + length <= sizeof c->input);
  memcpy(c->input + c->input_used, &header, sizeof header);
  if (length > 0) memcpy(c->input + c->input_used + sizeof header, payload, length);
  c->input_used += sizeof header + length;
}

struct wire_install talk_install(uint8_t direction, uint32_t spi) {
  static uint32_t id = 1000;
  struct wire_install m = {
      .id = id++,
      .sa = {.direction = direction, .spi = spi, .peer = {.port = 4500}},
      .selector_count = 2,
      .lifetimes = {PROTOCOL_NO_LIMIT, PROTOCOL_NO_LIMIT, PROTOCOL_NO_LIMIT, PROTOCOL_NO_LIMIT},
      .replay_window = 1024,
      .note_length = 4,
  };
  const uint8_t peer[16] = {[10] = 0xff, [11] = 0xff, [12] = 192, [14] = 2, [15] = 1};
  memcpy(m.sa.peer.address, peer, sizeof peer);
  struct pair pairs[2] = {bed_pair4, bed_pair6};
  for (int i = 0; i < 2; i++) {
    struct pair p = direction == DIRECTION_OUT ? pairs[i] : (struct pair){pairs[i].remote, pairs[i].local};
    pair_to_wire(&m.selectors[i], &p);
  }
  for (uint8_t i = 0; i < 32; i++) m.key[i] = (uint8_t)(spi + i);
  for (uint8_t i = 0; i < 4; i++) m.salt[i] = (uint8_t)(spi + 32 + i);
  return m;
}

void talk_send_install(struct engine *e, const struct wire_install *install) {
  uint8_t message[sizeof *install + 4];
  memcpy(message, install, sizeof *install);
  memcpy(message + sizeof *install, "note", 4);
  talk_send(e, MSG_INSTALL, message, sizeof message);
}

bool talk_receive(struct engine *e, struct message *message) {
  struct connection *c = &e->connection;
  struct wire_header header;
  if (connection_pending(c) == 0) return false;
  memcpy(&header, c->output + c->output_start, sizeof header);
  CHECK(header.length >= 1 && connection_pending(c) >= header.length + sizeof header.length);
  *message = (struct message){header.type, c->output + c->output_start + sizeof header, header.length - 1};
  c->output_start += header.length + sizeof header.length;
  return true;
}

struct message talk_expect(struct engine *e, uint8_t type) {
  struct message message;
  do {
    CHECK(talk_receive(e, &message));
  } while (message.type != type);
  return message;
}

enum message_status talk_status(struct engine *e, uint32_t id) {
  struct wire_done done;
  CHECK(engine_requests(e));
  engine_reclaim(e);
  do {
    struct message message = talk_expect(e, MSG_DONE);
    CHECK(message.length == sizeof done);
    memcpy(&done, message.payload, sizeof done);
  } while (done.id != id);
  return done.status;
}
