/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What user space hears of requests: some of them, as http_settings says. */
#pragma once

#include "events.h"
#include "http_maps.h"

#define HTTP_SAID_BURST 64

enum http_said_kind {
	SAID_PASSED = 0,
	SAID_REFUSED = 1,
	SAID_AUDITED = 2,
};

/* @returns Whether a request may be said now; `unsaid` is how many were not since the last. */
static __always_inline bool http_said_due(__u32 kind, __u32 *unsaid)
{
	__u32 zero = 0;
	struct http_settings *settings = bpf_map_lookup_elem(&http_settings, &zero);
	struct http_limit *limit = bpf_map_lookup_elem(&http_limits, &kind);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!settings || !limit || settings->interval_ns == 0)
		return false;
	if (kind == SAID_PASSED) {
		if (settings->every == 0)
			return false;
		if (limit->passed++ % settings->every != 0)
			return false;
	}
	if (limit->next_ns > now + HTTP_SAID_BURST * settings->interval_ns) {
		limit->unsaid++;
		return false;
	}
	limit->next_ns = (limit->next_ns > now ? limit->next_ns : now) + settings->interval_ns;
	*unsaid = limit->unsaid;
	limit->unsaid = 0;
	return true;
}

/* Whether the rule that decided has the request said, however many are. What it says goes into `said`. */
static __always_inline bool http_log_due(const struct http_judgement *judgement, struct http_said *said)
{
	__u32 unlogged = 0;

	said->logged = (judgement->flags & POLICY_LOG) && log_due(judgement->rule, &unlogged);
	said->unlogged = unlogged;
	return said->logged;
}

/* Not inlined: its prototype is what carries the layout of an event into the BTF. */
static __noinline void http_event_submit(struct http_event *event)
{
	bpf_ringbuf_submit(event, 0);
}

/* Says a request. `reason` is FORWARDED, or why it was, or would be, refused; a status of 0: there is none. */
SUBPROGRAM int http_event_say(const struct ct_key *key, const struct http_said *said, __u32 ifindex, __u32 reason,
			      __u32 status)
{
	struct http_event *event;
	struct endpoint *endpoint;
	__u32 zero = 0, index = ifindex;
	__u64 *lost;
	bool v4;

	if (!key || !said)
		return -1;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lost = bpf_map_lookup_elem(&event_losses, &zero);
		if (lost)
			(*lost)++;
		return -1;
	}
	__builtin_memset(event, 0, sizeof(*event));
	endpoint = bpf_map_lookup_elem(&endpoints, &index);
	v4 = addr_is_ipv4(&key->remote);
	event->event.time_ns = bpf_ktime_get_ns();
	event->event.kind = said->kind;
	event->event.direction = DIRECTION_INGRESS;
	event->event.verdict = reason == FORWARDED || said->kind == EVENT_AUDIT ? VERDICT_ALLOW : VERDICT_DENY;
	event->event.flags = said->logged ? EVENT_LOGGED : 0;
	event->event.unsaid = said->unlogged;
	event->event.reason = reason;
	event->event.protocol = IPPROTO_TCP;
	event->event.endpoint = key->endpoint;
	event->event.ifindex = ifindex;
	event->event.rule = said->rule;
	event->event.source_identity = said->identity;
	event->event.source = key->remote;
	event->event.source_port = key->remote_port;
	event->event.destination_port = key->local_port;
	if (endpoint) {
		event->event.destination = v4 ? endpoint->addr4 : endpoint->addr6;
		event->event.destination_identity = v4 ? endpoint->identity4 : endpoint->identity6;
	}
	if (said->started_ns != 0 && event->event.time_ns > said->started_ns)
		event->event.duration_ns = event->event.time_ns - said->started_ns;
	event->status = status;
	event->unsaid = said->unsaid;
	event->method_length = said->method_length;
	event->path_length = said->path_length;
	__builtin_memcpy(event->method, said->method, HTTP_SAID_METHOD);
	__builtin_memcpy(event->path, said->path, HTTP_SAID_PATH);
	http_event_submit(event);
	return 0;
}
