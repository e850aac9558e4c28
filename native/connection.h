// SPDX-License-Identifier: Apache-2.0
// The two buffers of a control connection, and cutting the stream into messages. No I/O.
#pragma once

#include "common.h"
#include "protocol.h"

// Above this much unread output no more requests are taken and events that may be lost are.
#define CONNECTION_BUSY (1u << 20)
// Above this much the agent is stuck, and the connection is given up.
#define CONNECTION_MAX (32u << 20)
#define CONNECTION_INPUT (64u << 10)

struct connection {
  uint64_t number; // 0 = none; tells the answers to a dead connection's requests from this one's
  uint8_t input[CONNECTION_INPUT];
  size_t input_used;
  uint8_t *output;
  size_t output_start, output_end, output_size;
  bool broken; // output ran over: to be closed
};

struct message {
  uint8_t type;
  const uint8_t *payload;
  size_t length;
};

enum frame { FRAME_NONE, FRAME_MESSAGE, FRAME_BAD };

// Starts afresh; what was in the buffers is gone, keys zeroed.
void connection_reset(struct connection *connection, uint64_t number);
// Looks at the next message in the input at `*at`. FRAME_MESSAGE moves `*at` behind it.
enum frame connection_next(const struct connection *connection, size_t *at, struct message *message);
// Forgets the input up to `at`, zeroing it: it may have held a key.
void connection_consume(struct connection *connection, size_t at);
// Room for a message with a payload of `length` bytes at the end of the output; NULL when the connection is broken.
void *connection_append(struct connection *connection, enum message_type type, size_t length);

static inline size_t connection_pending(const struct connection *c) { return c->output_end - c->output_start; }
