/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * For tests only: what reads requests, over bytes from a map in place of a socket's. Programs of sockets cannot be
 * test-run, and what can be takes no more than a page.
 */
#include "lib/base.h"

#define HTTP_TEST_BYTES 65536

struct http_test_bytes {
	__u8 bytes[HTTP_TEST_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct http_test_bytes);
} http_test_bytes SEC(".maps");

static __always_inline long test_load(__u32 offset, void *to, __u32 length)
{
	__u32 zero = 0;
	struct http_test_bytes *source = bpf_map_lookup_elem(&http_test_bytes, &zero);

	return source ? bpf_probe_read_kernel(to, length, source->bytes + (offset & (HTTP_TEST_BYTES - 1))) : -1;
}

#define HTTP_LOAD(skb, offset, to, length) ((void)(skb), test_load(offset, to, length))

#include "lib/http_maps.h"
#include "lib/http_stream.h"
#include "lib/http_verdict.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* What was read last. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct http_request);
} http_test_request SEC(".maps");

/* cb[0]: where a message begins; cb[1]: where the packet ends. @returns What the message's length is, 0: its end is not there. */
SEC("tc")
int http_test_parse(struct __sk_buff *skb)
{
	struct http_key key = {};
	__u32 zero = 0;
	struct http_stream *stream = bpf_map_lookup_elem(&http_streams, &key);
	struct http_request *request = bpf_map_lookup_elem(&http_test_request, &zero);

	return stream && request ? (int)stream_parse(skb, skb->cb[0], skb->cb[1] - skb->cb[0], &key, stream, request) : -1;
}

/* The message that was parsed last. @returns Of a head, why it is refused, or 0; of a body's piece, the same. */
SEC("tc")
int http_test_message(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct http_request *request = bpf_map_lookup_elem(&http_test_request, &zero);
	struct http_key key = {};
	struct http_stream *stream = bpf_map_lookup_elem(&http_streams, &key);
	enum drop_reason reason;

	(void)skb;
	if (!stream || !request)
		return -1;
	if (stream->flags & HTTP_BROKEN)
		return HTTP_BODY_MALFORMED;
	if (stream->phase != HTTP_IN_HEAD) {
		http_body(stream);
		return FORWARDED;
	}
	if (stream->flags & HTTP_TOO_BIG)
		return HTTP_HEAD_TOO_BIG;
	if (stream->flags & HTTP_NO_HTTP)
		return HTTP_MALFORMED;
	reason = http_lex(request);
	if (!reason)
		http_follow(stream, request);
	return reason;
}

/* cb[0]: a rule set. The alternatives of its matcher that the request is are in the request then. */
SEC("tc")
int http_test_match(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct http_request *request = bpf_map_lookup_elem(&http_test_request, &zero);

	return request ? http_match(request, skb->cb[0]) : -1;
}
