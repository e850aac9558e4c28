/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Cuts a connection's bytes into messages that the verdict is about: a head, whole; a piece of a body, as it comes.
 */
#pragma once

#include "http_chunk.h"
#include "http_end.h"
#include "http_maps.h"

/*
 * EPROTO, for a socket that nothing is known of. Else the parser never gives up: what an error leaves in the socket's
 * queue keeps the server from ever reading again, also that there was an error.
 */
#define PROTOCOL_ERROR (-71)

static __always_inline int stream_broken(struct http_stream *stream, __u32 available)
{
	stream->flags |= HTTP_BROKEN;
	return available;
}

/* @returns The length of the message, 0 where more must come, an error. */
static __always_inline int stream_head(struct __sk_buff *skb, __u32 offset, __u32 available, struct http_stream *stream,
				       struct http_request *request)
{
	struct head_end scan = { .request = request };
	struct http_reader *reader = &request->reader;
	__u32 all = available > HTTP_HEAD ? HTTP_HEAD : available;
	/* One byte again: a CR may stand before the LF that comes now. */
	__u32 from = stream->scanned == 0 ? 0 : stream->scanned - 1;
	__u32 length = all - from;

	if (from >= all)
		return stream_broken(stream, available);
	asm volatile("" : "+r"(length));
	if (length == 0 || length > HTTP_HEAD)
		return stream_broken(stream, available);
	if (HTTP_LOAD(skb, offset + from, request->head, length) < 0)
		return stream_broken(stream, available);
	__builtin_memset(reader, 0, sizeof(*reader));
	reader->from = from;
	reader->length = length;
	reader->line_end = stream->line_end;
	if (from == 0 && !http_byte_is(request->head[0], BYTE_METHOD)) {
		stream->flags |= HTTP_NO_HTTP;
		return all;
	}
	bpf_loop(HTTP_HEAD / 8, head_end_step, &scan, 0);
	if (reader->end != 0)
		return reader->end;
	if (from == 0 && reader->first_line != 0 && head_end_odd(request, reader->first_line)) {
		stream->flags |= HTTP_NO_HTTP;
		return all;
	}
	if (available >= HTTP_HEAD) {
		stream->flags |= HTTP_TOO_BIG;
		return all;
	}
	stream->scanned = available;
	stream->line_end = reader->line_end;
	return 0;
}

static __always_inline int stream_chunks(struct __sk_buff *skb, __u32 offset, __u32 available,
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

static __always_inline int stream_body(__u32 available, struct http_stream *stream)
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
 * What the stream parser says of the bytes from `offset` on, of which `available` are there: how long the message is that
 * begins there, 0 where that is not known yet.
 */
static __always_inline int stream_parse(struct __sk_buff *skb, __u32 offset, __u32 available,
					struct http_stream *stream)
{
	struct http_request *request;
	int length;

	if (stream->phase == HTTP_IN_BODY)
		return stream_body(available, stream);
	if (stream->phase != HTTP_IN_HEAD && stream->phase != HTTP_IN_CHUNKS)
		return available;
	request = http_request_take();
	if (!request)
		return stream_broken(stream, available);
	if (stream->phase == HTTP_IN_HEAD)
		length = stream_head(skb, offset, available, stream, request);
	else
		length = stream_chunks(skb, offset, available, stream, request);
	http_request_give(request);
	return length;
}
