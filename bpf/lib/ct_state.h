/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The life of a connection, whatever policy says: what may open it, its state after each packet, when it ends. */
#pragma once

#include "maps.h"
#include "packet.h"
#include "track.h"
#include "transport.h"

#define SECOND_NS 1000000000ULL
#define CT_DEFAULT_OPENING_NS (60 * SECOND_NS)
#define CT_DEFAULT_TCP_ESTABLISHED_NS (21600 * SECOND_NS)
#define CT_DEFAULT_TCP_HALF_CLOSED_NS (120 * SECOND_NS)
#define CT_DEFAULT_CLOSED_NS (10 * SECOND_NS)
#define CT_DEFAULT_UDP_NS (180 * SECOND_NS)
#define CT_DEFAULT_SCTP_NS (300 * SECOND_NS)
#define CT_DEFAULT_ICMP_NS (30 * SECOND_NS)

#define SCTP_ABORT 6
#define SCTP_SHUTDOWN_COMPLETE 14

static __always_inline __u64 ct_timeout(const struct config *settings, __u8 protocol, __u8 state)
{
	if (state == CT_CLOSED)
		return settings->closed_ns ?: CT_DEFAULT_CLOSED_NS;
	if (state == CT_HALF_CLOSED)
		return settings->tcp_half_closed_ns ?: CT_DEFAULT_TCP_HALF_CLOSED_NS;
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6_NUMBER)
		return settings->icmp_ns ?: CT_DEFAULT_ICMP_NS;
	if (state == CT_OPENING)
		return settings->opening_ns ?: CT_DEFAULT_OPENING_NS;
	if (protocol == IPPROTO_TCP)
		return settings->tcp_established_ns ?: CT_DEFAULT_TCP_ESTABLISHED_NS;
	if (protocol == IPPROTO_SCTP_NUMBER)
		return settings->sctp_ns ?: CT_DEFAULT_SCTP_NS;
	return settings->udp_ns ?: CT_DEFAULT_UDP_NS;
}

static __always_inline bool ct_is_syn(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Whether a packet that belongs to no connection may start one. */
static __always_inline enum drop_reason ct_may_open(const struct packet *packet)
{
	if (packet->flags & PACKET_LATER_FRAGMENT)
		return FRAGMENT_WITHOUT_FIRST;
	if (packet->flags & PACKET_REPLY_ONLY)
		return CT_INVALID;
	if (packet->protocol == IPPROTO_TCP &&
	    ((packet->tcp_flags & TCP_RST) || (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK)))
		return CT_INVALID;
	return FORWARDED;
}

/* The state after one more packet, which its flags are already noted of. */
static __always_inline __u8 ct_next_state(const struct packet *packet, const struct ct_entry *entry, bool reply)
{
	if (packet->protocol == IPPROTO_TCP) {
		if (packet->tcp_flags & TCP_RST)
			return CT_CLOSED;
		if (entry->tcp_flags[0] & entry->tcp_flags[1] & TCP_FIN)
			return CT_CLOSED;
		if ((entry->tcp_flags[0] | entry->tcp_flags[1]) & TCP_FIN)
			return CT_HALF_CLOSED;
	}
	if (packet->protocol == IPPROTO_SCTP_NUMBER && !(packet->flags & PACKET_LATER_FRAGMENT) &&
	    (packet->icmp_type == SCTP_ABORT || packet->icmp_type == SCTP_SHUTDOWN_COMPLETE))
		return CT_CLOSED;
	return reply && entry->state == CT_OPENING ? CT_ESTABLISHED : entry->state;
}

/* Whether `entry` is this packet's connection: still alive, and not closed while the packet opens the next one. */
static __always_inline bool ct_is_live(const struct ct_entry *entry, const struct packet *packet, __u32 direction,
				       __u64 now)
{
	if (entry->expires_ns < now)
		return false;
	/* A SYN against the direction of the connection opens one of its own, and is judged as that. */
	return !ct_is_syn(packet) || (entry->direction == direction && entry->state != CT_CLOSED);
}

/*
 * Whether a packet may take another way to the backend (directly, or through another service) than its ports took before.
 * A stream that lives holds its way, since a reply bears the address of one way only. One that nobody answered is given
 * up by whoever opens another; and where there are no streams, replies go by the way of the newest request: a client's
 * ports come round again long before such an entry ends.
 */
static __always_inline bool ct_may_change_way(const struct ct_entry *entry, const struct packet *packet)
{
	if (packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_SCTP_NUMBER)
		return entry->state == CT_CLOSED || (entry->state == CT_OPENING && packet->protocol == IPPROTO_TCP &&
						     ct_is_syn(packet));
	return true;
}

/* Takes one more packet into account. */
static __always_inline void ct_account(const struct config *settings, const struct packet *packet, struct track *track,
				       struct ct_entry *entry, __u64 now)
{
	__u32 way = track->reply ? 1 : 0;
	__u8 state = entry->state;
	__u8 next;

	__sync_fetch_and_add(&entry->packets[way], 1);
	__sync_fetch_and_add(&entry->bytes[way], packet->length);
	if (packet->tcp_flags & ~entry->tcp_flags[way])
		entry->tcp_flags[way] |= packet->tcp_flags;
	next = ct_next_state(packet, entry, track->reply);
	/* A closed connection's last packets do not keep it. */
	if (next != CT_CLOSED || state != CT_CLOSED)
		entry->expires_ns = now + ct_timeout(settings, packet->protocol, next);
	if (next != state) {
		entry->state = next;
		if (next == CT_CLOSED)
			track->event = EVENT_END;
	} else if (settings->report_interval_ns != 0 && now - entry->last_report_ns >= settings->report_interval_ns) {
		entry->last_report_ns = now;
		track->event = EVENT_PERIODIC;
	}
}
