// SPDX-License-Identifier: Apache-2.0
// Answers of the control protocol: the last one to every request, and what the requests want to know that only ask.
#pragma once

#include "engine.h"

// MSG_DONE.
void answer_done(struct engine *engine, uint32_t id, enum message_status status, bool more);
// MSG_LIST and MSG_STATISTICS. False when the message's length is wrong.
bool answer_list(struct engine *engine, const struct message *message);
bool answer_statistics(struct engine *engine, const struct message *message);
