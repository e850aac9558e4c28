/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of a message: a head is judged, a piece of a body goes where its head went. */
#pragma once

#include "http_order.h"
#include "http_say.h"
#include "http_stream.h"
#include "proxied.h"

#include "http_answer.h"

enum http_action {
	HTTP_PASS = 0,
	HTTP_DROP = 1,
	HTTP_ANSWER = 2, /* the kernel is to answer: `reason` of the walk says what */
	HTTP_RESET = 3,  /* both ends are to be told that the connection is over */
};

#define SEEN(action) (1U << (action))

/* A packet's messages, one after the other. */
struct http_walk {
	struct __sk_buff *skb;
	const struct http_key *key;
	struct http_stream *stream;
	struct http_request *request; /* its reader's `walked`, `seen` and `reason` are the walk's */
	__u32 length; /* of the packet */
};

/* Makes ready for what follows a head. */
static __always_inline void http_follow(struct http_stream *stream, const struct http_request *request)
{
	if (request->flags & HTTP_IS_CHUNKED) {
		stream->phase = HTTP_IN_CHUNKS;
		stream->chunk = CHUNK_SIZE;
		stream->line = 0;
	} else if ((request->flags & HTTP_HAS_LENGTH) && request->content_length != 0) {
		stream->phase = HTTP_IN_BODY;
		stream->remaining = request->content_length;
	} else {
		stream->phase = HTTP_IN_HEAD;
		stream->flags &= ~HTTP_SWALLOW;
	}
}

/*
 * Whether policy about the pod has changed since it let a request of the connection through, and what denies now wants
 * both ends of connections told that were admitted before (POLICY_RESET).
 */
static __always_inline bool http_resets(const struct http_stream *stream, const struct http_judgement *judgement)
{
	return judgement->reason == HTTP_DENIED && (judgement->flags & POLICY_RESET) && stream->sets[1] != 0 &&
	       (stream->sets[0] != judgement->sets[0] || stream->sets[1] != judgement->sets[1] ||
		stream->sets[2] != judgement->sets[2]);
}

static __always_inline __u32 http_status(enum drop_reason reason)
{
	return reason == HTTP_DENIED ? 403 : reason == HTTP_HEAD_TOO_BIG ? 431 : 400;
}

/*
 * Whether the kernel's answer would be the next one on the connection. Its own answers before are no matter: they leave in
 * their order. A packet that has also passed something cannot be an answer.
 */
static __always_inline bool http_may_answer(const struct http_walk *walk, struct http_answers *answers)
{
	const struct http_progress *progress = &walk->request->walk;
	__u32 room = progress->seen & SEEN(HTTP_ANSWER) ? walk->length - progress->at : walk->length;

	return !(progress->seen & SEEN(HTTP_PASS)) && room >= ANSWER_SHORTEST && walk->length <= ANSWER_LONGEST &&
	       http_settled(walk->skb, answers);
}

/* The answer that is due is written over the packet up to `end`: only now is it known how long it may be. */
static __always_inline bool http_write(struct http_walk *walk, __u32 end)
{
	struct http_request *request = walk->request;

	if (!(request->walk.seen & SEEN(HTTP_ANSWER)))
		return true;
	return http_answer(walk->skb, request, request->walk.from, end - request->walk.from);
}

/* A head, which is in `request` unless it is none. */
static __always_inline enum http_action http_head(struct http_walk *walk, __u32 length)
{
	struct http_request *request = walk->request;
	struct http_judgement *judgement = &request->judgement;
	struct http_stream *stream = walk->stream;
	struct http_answers *answers = bpf_map_lookup_elem(&http_answers, &stream->connection);

	if (!answers)
		return HTTP_RESET;
	__builtin_memset(judgement, 0, sizeof(*judgement));
	judgement->reason = HTTP_MALFORMED;
	if (stream->flags & HTTP_TOO_BIG)
		judgement->reason = HTTP_HEAD_TOO_BIG;
	else if (!(stream->flags & HTTP_NO_HTTP))
		http_judge(stream, request);
	if (judgement->reason == HTTP_MALFORMED)
		proxied_learn(&stream->connection, request->head);
	if (judgement->reason == FORWARDED) {
		http_passed(answers, request);
		http_follow(stream, request);
		__builtin_memcpy(stream->sets, judgement->sets, sizeof(stream->sets));
		if (request->flags & HTTP_UPGRADES) {
			stream->phase = HTTP_IN_OTHER;
			stream->revision = judgement->revision;
		}
		if (judgement->audited)
			http_audit(stream, request, length);
		return HTTP_PASS;
	}
	if (http_resets(stream, judgement)) {
		http_refused(stream, request, 0, length);
		return HTTP_RESET;
	}
	if (!http_may_answer(walk, answers)) {
		http_refused(stream, request, 0, length);
		if (judgement->reason == HTTP_DENIED)
			proxied_learn_client(&stream->connection);
		return HTTP_RESET;
	}
	http_refused(stream, request, http_status(judgement->reason), length);
	if (!http_write(walk, request->walk.at))
		return HTTP_RESET;
	if (request->walk.seen & SEEN(HTTP_ANSWER))
		request->walk.from = request->walk.at;
	request->walk.reason = judgement->reason;
	request->walk.bodiless = judgement->reason == HTTP_DENIED && (request->flags & HTTP_IS_HEAD);
	if (judgement->reason == HTTP_DENIED && !(stream->flags & HTTP_BEGUN)) {
		stream->flags |= HTTP_SWALLOW;
		http_follow(stream, request);
	} else {
		/* Where the pod has the beginning of a head, nothing may ever follow it. */
		stream->phase = HTTP_REFUSED;
		request->walk.last = 1;
	}
	*(volatile __u32 *)&answers->asked = answers->asked + 1;
	return HTTP_ANSWER;
}

/* No HTTP any more, as long as policy allows that. */
static __always_inline enum http_action http_other(struct http_stream *stream, struct http_request *request)
{
	struct config *settings = config_get();
	struct policy_query *query = &request->query;
	__u32 audited;

	if (!settings)
		return HTTP_RESET;
	if (stream->revision == *(volatile __u32 *)&settings->revision)
		return HTTP_PASS;
	stream->revision = *(volatile __u32 *)&settings->revision;
	__builtin_memset(query, 0, sizeof(*query));
	query->request = REQUEST_STRICT;
	return http_query(stream, query, &audited) && policy_decide(query) == FORWARDED ? HTTP_PASS : HTTP_RESET;
}

static __always_inline enum http_action http_body(struct http_stream *stream)
{
	enum http_action action = stream->flags & HTTP_SWALLOW ? HTTP_DROP : HTTP_PASS;

	if (stream->flags & HTTP_LAST) {
		stream->flags &= ~(HTTP_LAST | HTTP_SWALLOW);
		stream->phase = HTTP_IN_HEAD;
	}
	return action;
}

static __always_inline enum http_action http_message(struct http_walk *walk, __u32 length)
{
	struct http_stream *stream = walk->stream;

	if (stream->flags & HTTP_BROKEN) {
		http_count(HTTP_BODY_MALFORMED, length);
		return HTTP_RESET;
	}
	switch (stream->phase) {
	case HTTP_IN_HEAD:
		return http_head(walk, length);
	case HTTP_IN_BODY:
	case HTTP_IN_CHUNKS:
		return http_body(stream);
	case HTTP_IN_OTHER:
		return http_other(stream, walk->request);
	}
	return HTTP_DROP;
}

static long http_walk_step(__u32 index, struct http_walk *walk)
{
	struct http_request *request = walk->request;
	__u32 at = request->walk.at;
	enum http_action action;
	__u32 length;

	(void)index;
	if (at >= walk->length)
		return 1;
	length = stream_parse(walk->skb, at, walk->length - at, walk->key, walk->stream, request);
	if (length == 0) {
		request->walk.seen |= SEEN(HTTP_PASS);
		request->walk.at = walk->length;
		return 1;
	}
	action = http_message(walk, length);
	request->walk.seen |= SEEN(action);
	request->walk.at = at + length;
	return action == HTTP_RESET ? 1 : 0;
}

/* What becomes of a packet: it goes one way as a whole, so where its messages would go several the connection ends. */
static __always_inline enum http_action http_walk(struct http_walk *walk)
{
	struct http_request *request = walk->request;
	__u32 seen;

	__builtin_memset(&request->walk, 0, sizeof(request->walk));
	bpf_loop(HTTP_AT_A_TIME, http_walk_step, walk, 0);
	seen = request->walk.seen;
	if ((seen & SEEN(HTTP_RESET)) || request->walk.at != walk->length)
		return HTTP_RESET;
	if (seen == SEEN(HTTP_PASS))
		return HTTP_PASS;
	if (seen & SEEN(HTTP_PASS)) {
		proxied_learn_client(&walk->stream->connection);
		return HTTP_RESET;
	}
	if (!(seen & SEEN(HTTP_ANSWER)))
		return HTTP_DROP;
	return http_write(walk, walk->length) ? HTTP_ANSWER : HTTP_RESET;
}
