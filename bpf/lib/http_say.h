/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What is counted and said of requests: those that pass with their answer, those that are refused, those that are audited. */
#pragma once

#include "http_event.h"
#include "http_judge.h"

static __always_inline void http_count(enum drop_reason reason, __u32 bytes)
{
	__u32 index = reason * 2 + 1;
	struct metric *metric = bpf_map_lookup_elem(&metrics, &index);

	/* Not as packets are counted: this also runs where it can be interrupted. */
	if (!metric)
		return;
	__sync_fetch_and_add(&metric->packets, 1);
	__sync_fetch_and_add(&metric->bytes, bytes);
}

/* What may be said of the head in `request`; one that could not be read has neither method nor path. */
static __always_inline void http_describe(struct http_request *request)
{
	const struct http_judgement *judgement = &request->judgement;
	struct http_said *said = &request->said;
	bool read = judgement->reason == FORWARDED || judgement->reason == HTTP_DENIED;
	__u32 method = read ? request->method_length : 0;
	__u32 path = read ? request->path_length : 0;

	said->kind = EVENT_REQUEST;
	said->rule = judgement->rule;
	said->identity = judgement->identity;
	said->method_length = method > HTTP_SAID_METHOD ? HTTP_SAID_METHOD : method;
	said->path_length = path > HTTP_SAID_PATH ? HTTP_SAID_PATH : path;
	__builtin_memcpy(said->method, request->head, HTTP_SAID_METHOD);
	__builtin_memcpy(said->path, request->target, HTTP_SAID_PATH);
}

/*
 * A request goes to the pod: its answer is awaited, and perhaps said with it. One is said at a time: a rule that has its
 * requests logged is told of how many there was no room for.
 */
static __always_inline void http_passed(struct http_answers *answers, struct http_request *request)
{
	__u64 bit = 1ULL << (answers->asked & 63);
	__u32 unsaid = 0;
	bool due;

	if (request->flags & HTTP_IS_HEAD)
		answers->heads |= bit;
	else
		answers->heads &= ~bit;
	if (*(volatile __u32 *)&answers->saying) {
		if (request->judgement.flags & POLICY_LOG)
			log_missed(request->judgement.rule);
		due = false;
	} else {
		due = http_said_due(SAID_PASSED, &unsaid);
		due |= http_log_due(&request->judgement, &request->said);
	}
	if (due) {
		http_describe(request);
		request->said.number = answers->asked;
		request->said.unsaid = unsaid;
		request->said.started_ns = bpf_ktime_get_ns();
		answers->said = request->said;
		*(volatile __u32 *)&answers->saying = 1;
	}
	answers->passed = answers->asked + 1;
	*(volatile __u32 *)&answers->asked = answers->asked + 1;
}

/* A request is refused, and said to be. `status` 0: the connection is reset for it. */
static __always_inline void http_refused(const struct http_stream *stream, struct http_request *request, __u32 status,
					 __u32 length)
{
	__u32 reason = request->judgement.reason;
	__u32 unsaid = 0;
	bool due;

	http_count(reason, length);
	due = http_said_due(SAID_REFUSED, &unsaid);
	due |= http_log_due(&request->judgement, &request->said);
	if (!due)
		return;
	http_describe(request);
	request->said.unsaid = unsaid;
	request->said.started_ns = 0;
	http_event_say(&stream->connection, &request->said, stream->ifindex, reason, status);
}

/* Says of a request that has passed that audited policies would not have let it. */
static __always_inline void http_audit(const struct http_stream *stream, struct http_request *request, __u32 length)
{
	__u32 unsaid = 0;

	if (!http_would_deny(stream, request))
		return;
	http_count(AUDITED, length);
	if (!http_said_due(SAID_AUDITED, &unsaid))
		return;
	http_describe(request);
	request->said.kind = EVENT_AUDIT;
	request->said.logged = 0;
	request->said.unlogged = 0;
	request->said.unsaid = unsaid;
	request->said.started_ns = 0;
	http_event_say(&stream->connection, &request->said, stream->ifindex, HTTP_DENIED, 0);
}
