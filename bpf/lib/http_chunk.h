/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Follows a chunked body to its end: src/policy/http/body.ts is the reference. Data is stepped over, only the lines
 * between are looked at; trailers are followed so far as to know that none of them would change the request.
 */
#pragma once

#include "http_class.h"
#include "http_layout.h"

/* Bytes that are looked at in one go: a body that is all lines goes on with the next message. */
#define CHUNK_STEPS 16384
#define CHUNK_WINDOW 256

struct chunks {
	struct __sk_buff *skb;
	struct http_stream *stream;
	struct http_request *request; /* its reader says where; its `head` is the window that bytes are looked at in */
	__u32 offset;                 /* of the message */
};

static __always_inline void chunk_size_end(struct http_stream *stream)
{
	stream->line = 0;
	stream->chunk = stream->remaining == 0 ? TRAILER_START : CHUNK_DATA;
}

/* FNV-1a: three names are looked for, and one that merely has the hash of one breaks its body, which is the safe side. */
#define NAME_HASH 0x811c9dc5U
#define NAME_PRIME 0x01000193U
#define HASH_HOST 0xaffea56fU
#define HASH_CONTENT_LENGTH 0x4df9451dU
#define HASH_TRANSFER_ENCODING 0xddb4744cU

static __always_inline bool trailer_forbidden(const struct http_stream *stream)
{
	return stream->name_hash == HASH_HOST || stream->name_hash == HASH_CONTENT_LENGTH ||
	       stream->name_hash == HASH_TRANSFER_ENCODING;
}

/* One byte of what is not data. @returns Whether it may stand there. */
static __always_inline bool chunk_byte(struct http_reader *reader, struct http_stream *stream, __u8 byte)
{
	stream->line++;
	switch (stream->chunk) {
	case CHUNK_SIZE:
		if (!http_byte_is(byte, BYTE_HEX))
			return false;
		stream->remaining = http_hex(byte);
		stream->sized = 1;
		stream->chunk = CHUNK_DIGITS;
		return true;
	case CHUNK_DIGITS:
		if (http_byte_is(byte, BYTE_HEX)) {
			stream->remaining = stream->remaining << 4 | http_hex(byte);
			return ++stream->sized <= 16;
		}
		if (stream->remaining >> 63)
			return false;
		if (byte == ';') {
			stream->chunk = CHUNK_EXTENSION;
			return true;
		}
		stream->chunk = CHUNK_SIZE_LF;
		return byte == '\r';
	case CHUNK_EXTENSION:
		if (byte == '\r') {
			stream->chunk = CHUNK_SIZE_LF;
			return true;
		}
		return http_byte_is(byte, BYTE_VALUE) && stream->line <= HTTP_CHUNK_LINE;
	case CHUNK_SIZE_LF:
		chunk_size_end(stream);
		return byte == '\n';
	case CHUNK_DATA_CR:
		stream->chunk = CHUNK_DATA_LF;
		return byte == '\r';
	case CHUNK_DATA_LF:
		stream->chunk = CHUNK_SIZE;
		stream->line = 0;
		return byte == '\n';
	case TRAILER_START:
		if (byte == '\r') {
			stream->chunk = TRAILERS_LF;
			return true;
		}
		stream->name_hash = NAME_HASH;
		stream->chunk = TRAILER_NAME;
		/* fall through */
	case TRAILER_NAME:
		if (byte == ':' && stream->name_hash != NAME_HASH) {
			stream->chunk = TRAILER_VALUE;
			return !trailer_forbidden(stream);
		}
		stream->name_hash = (stream->name_hash ^ http_lower(byte)) * NAME_PRIME;
		return http_byte_is(byte, BYTE_TOKEN) && stream->line <= HTTP_HEAD;
	case TRAILER_VALUE:
		if (byte == '\r') {
			stream->chunk = TRAILER_LF;
			return true;
		}
		return http_byte_is(byte, BYTE_VALUE) && stream->line <= HTTP_HEAD;
	case TRAILER_LF:
		stream->chunk = TRAILER_START;
		return byte == '\n' && stream->line <= HTTP_HEAD;
	case TRAILERS_LF:
		reader->ended = 1;
		return byte == '\n' && stream->line <= HTTP_HEAD;
	}
	return false;
}

/* Has the byte at reader->at in the window. */
static __always_inline bool chunk_load(struct chunks *chunks, struct http_reader *reader)
{
	__u32 at = chunks->offset + reader->at;
	__u32 left = reader->length - reader->at;

	if (reader->at >= reader->window && reader->at - reader->window < reader->loaded)
		return true;
	reader->window = reader->at;
	if (left > CHUNK_WINDOW)
		left = CHUNK_WINDOW;
	HTTP_WITHIN(left, CHUNK_WINDOW);
	reader->loaded = left;
	return HTTP_LOAD(chunks->skb, at, chunks->request->head, left) == 0;
}

static long chunk_step(__u32 index, struct chunks *chunks)
{
	struct http_stream *stream = chunks->stream;
	struct http_reader *reader = &chunks->request->reader;
	__u32 left = reader->length - reader->at;
	__u8 byte;

	(void)index;
	if (left == 0)
		return 1;
	if (stream->chunk == CHUNK_DATA) {
		if (stream->remaining > left) {
			stream->remaining -= left;
			reader->at += left;
			return 1;
		}
		reader->at += (__u32)stream->remaining;
		stream->remaining = 0;
		stream->chunk = CHUNK_DATA_CR;
		return 0;
	}
	if (!chunk_load(chunks, reader)) {
		reader->broken = 1;
		return 1;
	}
	byte = chunks->request->head[(reader->at - reader->window) & (CHUNK_WINDOW - 1)];
	if (!chunk_byte(reader, stream, byte)) {
		reader->broken = 1;
		return 1;
	}
	reader->at++;
	return reader->ended ? 1 : 0;
}
