/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests, on the sockets that pods have accepted: which sockets are read (sockops), and what becomes of what they get
 * (stream verdict). docs/HTTP.md.
 */
#include "lib/http_key.h"
#include "lib/http_maps.h"
#include "lib/http_stream.h"
#include "lib/http_verdict.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * Takes off what the packet repeats: the kernel hands over what its sender has sent again with its neighbours whole, and
 * does not tell its programs. @returns Whether the rest is the stream's next bytes.
 */
static __always_inline bool trim(struct __sk_buff *skb, struct http_stream *stream)
{
	void *at = (void *)skb + bpf_core_field_offset(struct sk_buff, cb) + bpf_core_field_offset(struct tcp_skb_cb, seq);
	__u32 sequence, repeated;

	if (bpf_probe_read_kernel(&sequence, sizeof(sequence), at) < 0)
		return false;
	if (stream->flags & HTTP_SEEN) {
		repeated = stream->next - sequence;
		if (repeated >= skb->len && repeated != 0)
			return false;
		stream->next = sequence + skb->len;
		return repeated == 0 || bpf_skb_adjust_room(skb, -(__s32)repeated, 0, 0) == 0;
	}
	stream->flags |= HTTP_SEEN;
	stream->next = sequence + skb->len;
	return true;
}

/*
 * The connection is over. The message goes back to where it came from, but only to from_pod, which drops it and tells both
 * ends (HTTP_UNREAD).
 */
static __always_inline void give_up(struct http_stream *stream)
{
	struct ct_entry *entry = bpf_map_lookup_elem(&ct, &stream->connection);

	stream->phase = HTTP_REFUSED;
	stream->flags = 0;
	if (entry)
		__sync_fetch_and_or(&entry->flags, CT_BROKEN);
}

SEC("sk_skb/stream_verdict")
int http_verdict(struct __sk_buff *skb)
{
	struct http_request *request;
	enum http_action action;
	struct http_key key = {};
	struct http_walk walk = { .skb = skb, .key = &key };

	HTTP_KEY(skb, &key);
	walk.stream = bpf_map_lookup_elem(&http_streams, &key);
	/* A FIN. */
	if (skb->len == 0)
		return SK_PASS;
	if (!walk.stream)
		return SK_DROP;
	request = http_request_take();
	if (!request || !trim(skb, walk.stream)) {
		if (request)
			http_request_give(request);
		give_up(walk.stream);
		return bpf_sk_redirect_hash(skb, &http_sockets, &key, 0);
	}
	walk.length = skb->len;
	walk.request = request;
	action = http_walk(&walk);
	http_request_give(request);
	if (action == HTTP_PASS)
		return SK_PASS;
	if (action == HTTP_DROP)
		return SK_DROP;
	if (action == HTTP_RESET)
		give_up(walk.stream);
	return bpf_sk_redirect_hash(skb, &http_sockets, &key, 0);
}

/* The sockhash's own (http_programs). */
SEC("sk_skb/stream_verdict")
int http_entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &http_programs, 0);
	return SK_DROP;
}

/* The connection of a pod's socket. @returns Its entry; NULL where it is none of a pod's. */
static __always_inline struct ct_entry *sockets_find(struct bpf_sock_ops *context, struct http_key *key,
						     struct http_stream *stream)
{
	__u64 cookie = bpf_get_netns_cookie(context);
	__u32 *ifindex = bpf_map_lookup_elem(&http_pods, &cookie);
	struct endpoint *endpoint;
	struct ct_key ct_key;

	if (!ifindex)
		return NULL;
	stream->ifindex = *ifindex;
	endpoint = bpf_map_lookup_elem(&endpoints, &stream->ifindex);
	if (!endpoint)
		return NULL;
	HTTP_KEY(context, key);
	stream->connection.endpoint = endpoint->id;
	stream->connection.local_port = key->local_port;
	stream->connection.remote_port = key->remote_port;
	stream->connection.remote = key->remote;
	stream->connection.protocol = IPPROTO_TCP;
	ct_key = stream->connection;
	return bpf_map_lookup_elem(&ct, &ct_key);
}

/*
 * The SYN of a connection that will be read: its data may pass to_pod from now on, since it may come there before the
 * pod's stack has seen that the handshake is complete. It waits in the socket's queue then, at the end of which is the
 * parser (sockets_accepted).
 */
static __always_inline void sockets_begin(struct bpf_sock_ops *context)
{
	struct http_stream stream = {};
	struct http_key key = {};
	struct ct_entry *entry;

	entry = sockets_find(context, &key, &stream);
	if (entry && (entry->flags & CT_BY_REQUEST) && entry->state == CT_OPENING)
		__sync_fetch_and_or(&entry->flags, CT_READ);
}

/* A connection that a pod has accepted and whose requests are to be read: from its first byte on, or never. */
static __always_inline void sockets_accepted(struct bpf_sock_ops *context)
{
	struct http_stream stream = {};
	struct http_answers *answers;
	struct http_key key = {};
	struct ct_entry *entry;
	struct ct_key ct_key;
	__u32 zero = 0;

	entry = sockets_find(context, &key, &stream);
	answers = bpf_map_lookup_elem(&http_no_answers, &zero);
	if (!entry || !answers)
		return;
	if (!(entry->flags & CT_BY_REQUEST)) {
		/* Policy has changed its mind since the SYN, and may do so again. */
		__sync_fetch_and_and(&entry->flags, ~CT_READ);
		return;
	}
	ct_key = stream.connection;
	/* In the sockhash without the rest it can be read by nobody, which is what is wanted then. */
	if (bpf_sock_hash_update(context, &http_sockets, &key, BPF_ANY) < 0 ||
	    bpf_map_update_elem(&http_answers, &ct_key, answers, BPF_ANY) < 0 ||
	    bpf_map_update_elem(&http_streams, &key, &stream, BPF_ANY) < 0) {
		__sync_fetch_and_or(&entry->flags, CT_BROKEN);
		return;
	}
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	__sync_fetch_and_or(&entry->flags, CT_READ);
}

static __always_inline void sockets_closed(struct bpf_sock_ops *context)
{
	__u64 cookie = bpf_get_netns_cookie(context);
	struct http_stream *stream;
	struct http_key key = {};
	struct ct_key ct_key;

	if (!bpf_map_lookup_elem(&http_pods, &cookie))
		return;
	HTTP_KEY(context, &key);
	stream = bpf_map_lookup_elem(&http_streams, &key);
	if (!stream)
		return;
	ct_key = stream->connection;
	if (stream->begun != 0)
		bpf_map_delete_elem(&http_partials, &key);
	bpf_map_delete_elem(&http_answers, &ct_key);
	bpf_map_delete_elem(&http_streams, &key);
}

SEC("sockops")
int http_accept(struct bpf_sock_ops *context)
{
	if (context->op == BPF_SOCK_OPS_RWND_INIT && !context->is_fullsock)
		sockets_begin(context);
	else if (context->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		sockets_accepted(context);
	else if (context->op == BPF_SOCK_OPS_STATE_CB && context->args[1] == BPF_TCP_CLOSE)
		sockets_closed(context);
	return 1;
}
