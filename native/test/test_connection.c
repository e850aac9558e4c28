// SPDX-License-Identifier: Apache-2.0
#include "../connection.h"

#include <stdlib.h>

#include "check.h"

static struct connection c;

static void messages_in_pieces(void) {
  connection_reset(&c, 1);
  uint8_t stream[300];
  size_t length = 0;
  for (uint8_t i = 0; i < 10; i++) { // lengths 1 … 10, types 0 … 9
    stream[length] = (uint8_t)(i + 1);
    memset(stream + length + 1, 0, 3);
    stream[length + 4] = i;
    memset(stream + length + 5, i, i);
    length += 5u + i;
  }
  uint8_t next = 0;
  for (size_t i = 0; i < length; i++) {
    c.input[c.input_used++] = stream[i];
    size_t at = 0;
    struct message message;
    enum frame frame;
    while ((frame = connection_next(&c, &at, &message)) == FRAME_MESSAGE) {
      CHECK(message.type == next && message.length == next);
      for (size_t j = 0; j < message.length; j++) CHECK(message.payload[j] == next);
      next++;
    }
    CHECK(frame == FRAME_NONE);
    size_t used = c.input_used;
    connection_consume(&c, at);
    for (size_t j = c.input_used; j < used; j++) CHECK(c.input[j] == 0); // it may have been a key
  }
  CHECK(next == 10 && c.input_used == 0);
}

static void impossible_lengths(void) {
  const uint32_t lengths[] = {0, PROTOCOL_MAX_REQUEST + 1, UINT32_MAX};
  for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
    connection_reset(&c, 1);
    memcpy(c.input, &lengths[i], 4);
    c.input_used = 5;
    size_t at = 0;
    struct message message;
    CHECK(connection_next(&c, &at, &message) == FRAME_BAD);
  }
}

static void output_is_bounded(void) {
  connection_reset(&c, 1);
  unsigned count = 0;
  while (connection_append(&c, MSG_SA, 1000) != NULL) count++;
  CHECK(c.broken && count == CONNECTION_MAX / 1005);
  connection_reset(&c, 0);
  CHECK(connection_append(&c, MSG_SA, 1000) == NULL && !c.broken); // no connection: nothing to say it to
  connection_reset(&c, 0);
}

const struct test connection_tests[] = {
    {"connection: messages arrive in any pieces, and are zeroed after", messages_in_pieces},
    {"connection: impossible lengths end it", impossible_lengths},
    {"connection: output is bounded", output_is_bounded},
    {0},
};
