/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What comes out of a tunnel: tc ingress of the tunnel device. The pair of inner addresses says which security
 * association decrypted the packet, and that says who proved to be its source. Only pods are reached by this way.
 *
 * `from_tunnel` is for devices whose packets have no link header (TUN); `from_tunnel_ethernet` is the same for those with
 * one, and what a test run can feed. An xfrm device is of these: what it decrypted keeps the link header that the outer
 * packet had.
 *
 * `from_holder` takes the place of `from_tunnel` at the TUN device of an engine that holds packets for the kernel's ESP:
 * what it gives back goes on to where from_pod would send it by now. It has passed from_pod before. While tunnels go over from
 * the engine to the kernel, or back, the engine also opens packets, which come out of the same device (CONFIG_CHANGING).
 */
#include "lib/deliver.h"
#include "lib/events.h"
#include "lib/maps.h"
#include "lib/parse.h"
#include "lib/transport.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Whether the kernel decrypted the packet with the association that was proven for this pair, or its predecessor. */
static __always_inline bool decrypted_by(struct __sk_buff *skb, const struct tunnel *tunnel)
{
	struct bpf_xfrm_state state = {};
	__u32 spi;

	if (bpf_skb_get_xfrm_state(skb, 0, &state, sizeof(state), 0) < 0)
		return false;
	spi = bpf_ntohl(state.spi);
	return spi != 0 && (spi == tunnel->spi || spi == tunnel->previous_spi);
}

/* Out of a tunnel: to the pod that the packet is for, as what the pair of addresses has proved. */
static __always_inline enum drop_reason arrive(struct __sk_buff *skb, const struct packet *packet, struct place *place,
					       const bool framed, const bool by_engine, int *action)
{
	struct config *settings = config_get();
	struct endpoint *target;
	struct tunnel_key key;
	struct tunnel *tunnel;
	__u32 *ifindex;
	__u32 link;

	if (!settings)
		return ENDPOINT_NOT_READY;
	ifindex = bpf_map_lookup_elem(&local, &packet->destination);
	if (!ifindex)
		return TUNNEL_TO_NODE;
	link = *ifindex;
	place->ifindex = link;
	target = bpf_map_lookup_elem(&endpoints, &link);
	if (!target)
		return ENDPOINT_NOT_READY;
	place->endpoint = target->id;
	place->destination_identity = packet->family == 4 ? target->identity4 : target->identity6;
	key.local = packet->destination;
	key.remote = packet->source;
	tunnel = bpf_map_lookup_elem(&tunnel_in, &key);
	if (!tunnel || tunnel->identity == IDENTITY_ANY)
		return TUNNEL_SELECTOR;
	if (!by_engine && (settings->flags & CONFIG_XFRM) && !decrypted_by(skb, tunnel))
		return TUNNEL_SELECTOR;
	place->source_identity = tunnel->identity;
	return deliver_to_pod(skb, link, target, MARK_PROVEN | (tunnel->identity & MARK_IDENTITY), framed, action);
}

/* Whether what comes out of the holder's device was opened by it: it is from no pod of this node. */
static __always_inline bool is_opened(const struct packet *packet)
{
	struct config *settings = config_get();

	return settings && (settings->flags & CONFIG_CHANGING) && !bpf_map_lookup_elem(&local, &packet->source);
}

/* Held, and given back: into the tunnel that the pair has by now. */
static __always_inline enum drop_reason resume(const struct packet *packet, int *action)
{
	struct config *settings = config_get();
	const __u32 *carrier;

	if (!settings || !(settings->flags & CONFIG_XFRM))
		return TUNNEL_SELECTOR;
	/* Whoever writes to the device speaks for this node's pods only, and into their own tunnels only. */
	carrier = deliver_carrier(packet);
	if (!carrier || !bpf_map_lookup_elem(&local, &packet->source))
		return TUNNEL_SELECTOR;
	*action = bpf_redirect(*carrier, 0);
	return FORWARDED;
}

/* What all programs here do; the last two are known at compile time: the packet's direction as a pod sees it, and whether
 * it has a link header. */
static __always_inline int take(struct __sk_buff *skb, const __u8 direction, const bool framed)
{
	struct ethhdr *ethernet = framed ? header_at(skb, 0, ETH_HLEN) : NULL;
	__be16 ethertype = framed ? (ethernet ? ethernet->h_proto : 0) : (__be16)skb->protocol;
	struct packet packet = {};
	struct place place = { .ifindex = skb->ifindex, .direction = direction };
	__u32 length = skb->len;
	int action = TC_ACT_SHOT;
	enum drop_reason reason;

	skb->mark = 0;
	reason = parse_network(skb, &packet, framed ? ETH_HLEN : 0, ethertype);
	if (!reason) {
		bool by_engine = direction == DIRECTION_EGRESS && is_opened(&packet);

		if (by_engine)
			place.direction = DIRECTION_INGRESS;
		if (direction == DIRECTION_INGRESS || by_engine)
			reason = arrive(skb, &packet, &place, framed, by_engine, &action);
		else
			reason = resume(&packet, &action);
	}
	if (!reason)
		return action;
	if (packet.l4 != 0)
		parse_transport(skb, &packet); /* for the event's ports */
	event_deny(&place, &packet, reason, length);
	return TC_ACT_SHOT;
}

SEC("tc")
int from_tunnel(struct __sk_buff *skb)
{
	return take(skb, DIRECTION_INGRESS, false);
}

SEC("tc")
int from_tunnel_ethernet(struct __sk_buff *skb)
{
	return take(skb, DIRECTION_INGRESS, true);
}

SEC("tc")
int from_holder(struct __sk_buff *skb)
{
	return take(skb, DIRECTION_EGRESS, false);
}

SEC("tc")
int from_holder_ethernet(struct __sk_buff *skb)
{
	return take(skb, DIRECTION_EGRESS, true);
}
