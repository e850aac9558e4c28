// SPDX-License-Identifier: Apache-2.0
#include "connection.h"

#include <stdlib.h>

void connection_reset(struct connection *c, uint64_t number) {
  explicit_bzero(c->input, c->input_used);
  c->input_used = 0;
  free(c->output);
  c->output = NULL;
  c->output_start = c->output_end = c->output_size = 0;
  c->broken = false;
  c->number = number;
}

enum frame connection_next(const struct connection *c, size_t *at, struct message *message) {
  struct wire_header header;
  size_t available = c->input_used - *at;
  if (available < sizeof header) return FRAME_NONE;
  memcpy(&header, c->input + *at, sizeof header);
  if (header.length < 1 || header.length > PROTOCOL_MAX_REQUEST) return FRAME_BAD;
  size_t whole = sizeof header.length + header.length;
  if (available < whole) return FRAME_NONE;
  *message = (struct message){header.type, c->input + *at + sizeof header, header.length - 1};
  *at += whole;
  return FRAME_MESSAGE;
}

void connection_consume(struct connection *c, size_t at) {
  size_t rest = c->input_used - at;
  memmove(c->input, c->input + at, rest);
  explicit_bzero(c->input + rest, at);
  c->input_used = rest;
}

static bool make_room(struct connection *c, size_t length) {
  if (c->output_size - c->output_end >= length) return true;
  size_t pending = connection_pending(c);
  if (pending + length > CONNECTION_MAX) return false;
  if (c->output_start > 0) {
    memmove(c->output, c->output + c->output_start, pending);
    c->output_start = 0;
    c->output_end = pending;
  }
  size_t size = c->output_size == 0 ? 4096 : c->output_size;
  while (size - pending < length) size *= 2;
  if (size == c->output_size) return true;
  uint8_t *bigger = realloc(c->output, size);
  if (bigger == NULL) return false;
  c->output = bigger;
  c->output_size = size;
  return true;
}

void *connection_append(struct connection *c, enum message_type type, size_t length) {
  struct wire_header header = {.length = (uint32_t)length + 1, .type = (uint8_t)type};
  if (c->number == 0 || c->broken) return NULL;
  if (!make_room(c, sizeof header + length)) {
    c->broken = true;
    return NULL;
  }
  uint8_t *start = c->output + c->output_end;
  memcpy(start, &header, sizeof header);
  c->output_end += sizeof header + length;
  return memset(start + sizeof header, 0, length);
}
