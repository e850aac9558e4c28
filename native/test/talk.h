// SPDX-License-Identifier: Apache-2.0
// The agent's side of the control protocol, for tests of the engine's.
#pragma once

#include "../engine.h"

// Opens a connection: the engine greets.
void talk_connect(struct engine *engine);
// Appends a request to the connection's input.
void talk_send(struct engine *engine, uint8_t type, const void *payload, size_t length);
// A request to install an SA of bed_pair4 and bed_pair6, fit to be changed and sent; the note is "note".
struct wire_install talk_install(uint8_t direction, uint32_t spi);
void talk_send_install(struct engine *engine, const struct wire_install *install);
// Takes the next message out of the engine's output; false when there is none.
bool talk_receive(struct engine *engine, struct message *message);
// Takes messages until one of this type comes, which must come.
struct message talk_expect(struct engine *engine, uint8_t type);
// Carries out what was sent and returns the status of the MSG_DONE with this id.
enum message_status talk_status(struct engine *engine, uint32_t id);
