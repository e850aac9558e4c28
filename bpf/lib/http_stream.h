/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Cuts a packet's bytes into messages that the verdict is about: a head, whole, whose beginning may have come before; a
 * piece of a body, as it comes.
 */
#pragma once

#include "http_chunk.h"
#include "http_end.h"
#include "http_maps.h"

static __always_inline __u32 stream_broken(struct http_stream *stream, __u32 available)
{
	stream->flags |= HTTP_BROKEN;
	return available;
}

/* Keeps the beginning of a head that is in `request`, of `length` bytes. @returns Whether there was room for it. */
static __always_inline bool stream_keep(const struct http_key *key, const struct http_request *request, __u32 length)
{
	__u32 zero = 0;
	struct http_partial *partial = bpf_map_lookup_elem(&http_partials, key);

	if (!partial) {
		partial = bpf_map_lookup_elem(&http_no_partial, &zero);
		if (!partial || bpf_map_update_elem(&http_partials, key, partial, BPF_ANY) < 0)
			return false;
		partial = bpf_map_lookup_elem(&http_partials, key);
		if (!partial)
			return false;
	}
	if (length == 0 || length > HTTP_HEAD)
		return false;
	HTTP_WITHIN(length, HTTP_HEAD);
	return bpf_probe_read_kernel(partial->bytes, length, request->head) == 0;
}

/* Puts what there is of a head so far into `request`: what was kept, and what has come. */
static __always_inline bool stream_gather(struct __sk_buff *skb, __u32 offset, __u32 length, __u32 begun,
					  const struct http_key *key, struct http_request *request)
{
	struct http_partial *partial;

	if (begun != 0) {
		partial = bpf_map_lookup_elem(&http_partials, key);
		if (!partial || begun >= HTTP_HEAD)
			return false;
		HTTP_WITHIN(begun, HTTP_HEAD);
		if (bpf_probe_read_kernel(request->head, begun, partial->bytes) < 0)
			return false;
	}
	if (length == 0 || length > HTTP_HEAD)
		return false;
	HTTP_WITHIN(length, HTTP_HEAD);
	return HTTP_LOAD(skb, offset, request->head + (begun & (HTTP_HEAD - 1)), length) == 0;
}

/* A head, of which `available` bytes are there; complete, it is in `request`. @returns As stream_parse. */
static __always_inline __u32 stream_head(struct __sk_buff *skb, __u32 offset, __u32 available, const struct http_key *key,
					 struct http_stream *stream, struct http_request *request)
{
	struct head_end scan = { .request = request };
	struct http_reader *reader = &request->reader;
	__u32 begun = stream->begun;
	__u32 taken = available > HTTP_HEAD - begun ? HTTP_HEAD - begun : available;

	if (begun >= HTTP_HEAD || !stream_gather(skb, offset, taken, begun, key, request))
		return stream_broken(stream, available);
	__builtin_memset(reader, 0, sizeof(*reader));
	reader->length = begun + taken;
	stream->begun = 0;
	if (begun != 0)
		stream->flags |= HTTP_BEGUN;
	else
		stream->flags &= ~HTTP_BEGUN;
	if (!http_byte_is(request->head[0], BYTE_METHOD)) {
		stream->flags |= HTTP_NO_HTTP;
		return available;
	}
	bpf_loop(HTTP_HEAD / 8, head_end_step, &scan, 0);
	if (reader->first_line != 0 && head_end_odd(request, reader->first_line)) {
		stream->flags |= HTTP_NO_HTTP;
		return available;
	}
	if (reader->end > begun) {
		request->length = reader->end;
		return reader->end - begun;
	}
	if (begun + taken >= HTTP_HEAD) {
		stream->flags |= HTTP_TOO_BIG;
		return available;
	}
	if (!stream_keep(key, request, begun + taken))
		return stream_broken(stream, available);
	stream->begun = begun + taken;
	return 0;
}

static __always_inline __u32 stream_chunks(struct __sk_buff *skb, __u32 offset, __u32 available,
					   struct http_stream *stream, struct http_request *request)
{
	struct chunks chunks = { .skb = skb, .stream = stream, .request = request, .offset = offset };
	struct http_reader *reader = &request->reader;

	__builtin_memset(reader, 0, sizeof(*reader));
	reader->length = available;
	bpf_loop(CHUNK_STEPS, chunk_step, &chunks, 0);
	if (reader->broken)
		return stream_broken(stream, available);
	if (reader->ended)
		stream->flags |= HTTP_LAST;
	return reader->at;
}

static __always_inline __u32 stream_body(__u32 available, struct http_stream *stream)
{
	if (stream->remaining > available) {
		stream->remaining -= available;
		return available;
	}
	available = (__u32)stream->remaining;
	stream->remaining = 0;
	stream->flags |= HTTP_LAST;
	return available;
}

/*
 * How long the message is that begins at `offset`, where `available` bytes are there; 0: all of them are the beginning of
 * a head, which is kept.
 */
static __always_inline __u32 stream_parse(struct __sk_buff *skb, __u32 offset, __u32 available,
					  const struct http_key *key, struct http_stream *stream,
					  struct http_request *request)
{
	switch (stream->phase) {
	case HTTP_IN_HEAD:
		return stream_head(skb, offset, available, key, stream, request);
	case HTTP_IN_BODY:
		return stream_body(available, stream);
	case HTTP_IN_CHUNKS:
		return stream_chunks(skb, offset, available, stream, request);
	}
	return available;
}
