// SPDX-License-Identifier: Apache-2.0
// Fuzzes the control socket: the input is the agent's stream, cut where a byte 0xfe says so. What the engine says back
// has to be whole messages, and no key may be among it.
#include <stdio.h>
#include <stdlib.h>

#include "../aead.h"
#include "../test/bed.h"
#include "../test/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

_Noreturn void check_failed(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: %s\n", file, line, condition);
  abort();
}

static uint64_t connections;

static void reconnect(struct engine *e) {
  connection_reset(&e->connection, ++connections);
  engine_greet(e);
}

static void read_answers(struct engine *e) {
  struct connection *c = &e->connection;
  while (connection_pending(c) > 0) {
    struct wire_header header;
    CHECK(connection_pending(c) >= sizeof header);
    memcpy(&header, c->output + c->output_start, sizeof header);
    CHECK(header.length >= 1 && connection_pending(c) >= sizeof header.length + header.length);
    CHECK(header.type >= MSG_DONE);
    c->output_start += sizeof header.length + header.length;
  }
  c->output_start = c->output_end = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (aead == NULL && !aead_select("auto")) abort();
  struct engine *e = bed_engine();
  reconnect(e);
  while (size > 0) {
    const uint8_t *cut = memchr(data, 0xfe, size);
    size_t chunk = cut == NULL ? size : (size_t)(cut - data) + 1;
    struct connection *c = &e->connection;
    if (chunk > sizeof c->input - c->input_used) chunk = sizeof c->input - c->input_used;
    memcpy(c->input + c->input_used, data, chunk);
    c->input_used += chunk;
    data += chunk;
    size -= chunk;
    bool good = engine_requests(e);
    engine_reclaim(e);
    engine_events(e);
    read_answers(e);
    if (!good) reconnect(e);
    read_answers(e);
    if (chunk == 0) break;
  }
  uint64_t counted[2] = {0, 0};
  for (struct sa *sa = e->table.oldest; sa != NULL; sa = sa->newer) counted[sa->direction]++;
  CHECK(counted[0] == e->table.count[0] && counted[1] == e->table.count[1]);
  return 0;
}
