/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What user space hears: counters of every packet by reason, and events of connections and denials. A denial that
 * repeats is counted in the kernel and reported once per interval. An event that finds the ring full is counted.
 */
#pragma once

#include "maps.h"
#include "packet.h"
#include "place.h"

static __always_inline void metrics_count(enum drop_reason reason, __u32 direction, __u32 bytes)
{
	__u32 index = reason * 2 + (direction == DIRECTION_INGRESS ? 1 : 0);
	struct metric *metric = bpf_map_lookup_elem(&metrics, &index);

	if (!metric)
		return;
	metric->packets++;
	metric->bytes += bytes;
}

/* Room in the ring for one event, zeroed; NULL, and counted, where it is full. */
static __always_inline struct event *event_reserve(void)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	__u32 zero = 0;
	__u64 *lost;

	if (event) {
		__builtin_memset(event, 0, sizeof(*event));
		return event;
	}
	lost = bpf_map_lookup_elem(&event_losses, &zero);
	if (lost)
		(*lost)++;
	return NULL;
}

/* Events of one rule with POLICY_LOG: so many at once, and then one in each interval. */
#define LOG_INTERVAL_NS 100000000ULL
#define LOG_BURST_NS (20 * LOG_INTERVAL_NS)

/* @returns Whether what the rule decided is to be said now; then `unsaid` is how much was not since the last time. */
SUBPROGRAM int log_due(__u32 rule, __u32 *unsaid)
{
	struct log_limit *limit;
	struct log_limit first = {};
	__u64 now = bpf_ktime_get_coarse_ns();

	if (!unsaid)
		return 0;
	*unsaid = 0;
	limit = bpf_map_lookup_elem(&log_limits, &rule);
	if (!limit) {
		first.next_ns = now + LOG_INTERVAL_NS;
		bpf_map_update_elem(&log_limits, &rule, &first, BPF_ANY);
		return 1;
	}
	if (limit->next_ns > now + LOG_BURST_NS) {
		__sync_fetch_and_add(&limit->unsaid, 1);
		return 0;
	}
	limit->next_ns = (limit->next_ns > now ? limit->next_ns : now) + LOG_INTERVAL_NS;
	*unsaid = limit->unsaid;
	limit->unsaid = 0;
	return 1;
}

/* One more of the rule's is not said. */
static __always_inline void log_missed(__u32 rule)
{
	struct log_limit *limit = bpf_map_lookup_elem(&log_limits, &rule);

	if (limit)
		__sync_fetch_and_add(&limit->unsaid, 1);
}

/* Not inlined: its prototype is what carries the layout of an event into the BTF. */
static __noinline void event_submit(struct event *event)
{
	bpf_ringbuf_submit(event, 0);
}

/* @returns Whether this denial is to be reported now; then `total` has what came since the last one. */
static __always_inline bool denial_due(const struct denial_key *key, __u32 length, struct metric *total)
{
	struct config *settings = config_get();
	struct denial *seen = bpf_map_lookup_elem(&denials, key);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct denial first = { .last_ns = now };

	total->packets = 1;
	total->bytes = length;
	if (!seen) {
		bpf_map_update_elem(&denials, key, &first, BPF_ANY);
		return true;
	}
	if (settings && now - seen->last_ns < settings->deny_interval_ns) {
		__sync_fetch_and_add(&seen->packets, 1);
		__sync_fetch_and_add(&seen->bytes, length);
		return false;
	}
	total->packets += seen->packets;
	total->bytes += seen->bytes;
	seen->packets = 0;
	seen->bytes = 0;
	seen->last_ns = now;
	return true;
}

/* Counts a packet as dropped and says so. The packet may be parsed in part only: what is not known is zero. */
SUBPROGRAM int event_deny(const struct place *place, const struct packet *packet, __u32 reason, __u32 length)
{
	struct denial_key key = {};
	struct metric total = { .packets = 1, .bytes = length };
	struct event *event;
	__u32 unsaid = 0;
	bool logged;

	if (!place || !packet)
		return -1;
	metrics_count(reason, place->direction, length);
	/* What is to be logged is not joined with others, as long as there is not too much of it. */
	logged = (place->flags & POLICY_LOG) && (reason == POLICY_DENIED || reason == POLICY_DENIED_EXPLICIT) &&
		 log_due(place->rule, &unsaid);
	key.endpoint = place->endpoint;
	key.remote = place->direction == DIRECTION_EGRESS ? packet->destination : packet->source;
	key.port = packet->destination_port;
	key.reason = reason;
	key.direction = place->direction;
	if (!logged && !denial_due(&key, length, &total))
		return 0;
	event = event_reserve();
	if (!event)
		return -1;
	event->time_ns = bpf_ktime_get_ns();
	event->kind = EVENT_DENY;
	event->direction = place->direction;
	event->verdict = VERDICT_DENY;
	event->reason = reason;
	event->protocol = packet->protocol;
	event->tcp_flags = packet->tcp_flags;
	event->flags = logged ? EVENT_LOGGED : 0;
	event->unsaid = unsaid;
	event->endpoint = place->endpoint;
	event->ifindex = place->ifindex;
	event->rule = place->rule;
	event->source_identity = place->source_identity;
	event->destination_identity = place->destination_identity;
	event->service = place->service;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->packets = total.packets;
	event->bytes = total.bytes;
	event_submit(event);
	return 0;
}
