/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A request's target, byte by byte into its canonical form (src/policy/http/canonical.ts): escapes, slashes, dot segments,
 * query. http_lex.h reads what is around it.
 */
#pragma once

#include "http_class.h"
#include "http_layout.h"

enum lex_state {
	LEX_METHOD = 0,
	LEX_TARGET,
	LEX_STAR,
	LEX_SCHEME,
	LEX_AUTHORITY,
	LEX_PATH,
	LEX_PATH_HEX1,
	LEX_PATH_HEX2,
	LEX_QUERY,
	LEX_QUERY_HEX1,
	LEX_QUERY_HEX2,
	LEX_VERSION,
	LEX_LINE,
	LEX_NAME,
	LEX_BEFORE_VALUE,
	LEX_VALUE,
	LEX_VALUE_LF,
	LEX_END_LF,
	LEX_DONE,
};

#define HTTP_AT(index) ((index) & (HTTP_HEAD - 1))

static __always_inline void lex_refuse(struct http_request *request)
{
	request->reader.reason = HTTP_MALFORMED;
}

static __always_inline void lex_emit(struct http_request *request, __u8 byte)
{
	request->target[HTTP_AT(request->reader.out)] = byte;
	request->reader.out++;
}

static __always_inline __u8 lex_emitted(const struct http_request *request, __u32 at)
{
	return request->target[HTTP_AT(at)];
}

/* Where the segment before the last begins, or the one behind it will be noted. */
static __always_inline __u16 *lex_segment_at(struct http_request *request)
{
	__u32 index = request->reader.depth & (HTTP_HEAD / 2 - 1);

	return (__u16 *)(request->head + HTTP_HEAD + HTTP_SLACK) + index;
}

/*
 * The last segment is complete: a dot segment goes, with the one before it where it has two dots. What is left ends with
 * a slash then, so slashes in a row become one by the same rule.
 */
static __always_inline void lex_segment(struct http_request *request, bool last)
{
	__u32 length = request->reader.out - request->reader.segment;
	__u8 first = lex_emitted(request, request->reader.segment);
	__u8 second = lex_emitted(request, request->reader.segment + 1);
	__u8 third = lex_emitted(request, request->reader.segment + 2);

	if (length == 0)
		return;
	if (first == '.') {
		if (length == 1) {
			request->reader.out = request->reader.segment;
			return;
		}
		if (second == ';' || (second == '.' && length > 2 && third == ';')) {
			lex_refuse(request);
			return;
		}
		if (second == '.' && length == 2) {
			if (request->reader.depth == 0) {
				lex_refuse(request);
				return;
			}
			request->reader.depth--;
			request->reader.out = *lex_segment_at(request);
			request->reader.segment = request->reader.out;
			return;
		}
	}
	if (last)
		return;
	*lex_segment_at(request) = request->reader.segment;
	request->reader.depth++;
	lex_emit(request, '/');
	request->reader.segment = request->reader.out;
}

static __always_inline void lex_target_end(struct http_request *request)
{
	request->target_length = request->reader.out;
	request->reader.state = LEX_VERSION;
	request->reader.count = 0;
}

static __always_inline void lex_path_end(struct http_request *request, __u8 byte)
{
	lex_segment(request, true);
	request->path_length = request->reader.out;
	if (byte == '?') {
		lex_emit(request, byte);
		request->reader.state = LEX_QUERY;
		return;
	}
	lex_target_end(request);
}

static __always_inline void lex_path_begin(struct http_request *request)
{
	request->target[0] = '/';
	request->reader.out = 1;
	request->reader.segment = 1;
	request->reader.depth = 0;
	request->reader.state = LEX_PATH;
}

static __always_inline void lex_path(struct http_request *request, __u8 byte)
{
	if (byte == '/')
		lex_segment(request, false);
	else if (byte == ' ' || byte == '?')
		lex_path_end(request, byte);
	else if (byte == '%')
		request->reader.state = LEX_PATH_HEX1;
	else if (http_byte_is(byte, BYTE_TARGET))
		lex_emit(request, byte);
	else
		lex_refuse(request);
}

static __always_inline __u8 lex_upper_digit(__u8 value)
{
	return value < 10 ? '0' + value : 'A' + value - 10;
}

/* An escape is complete: what may stand as itself does, the rest has one spelling. */
static __always_inline void lex_escaped(struct http_request *request, __u8 byte)
{
	request->reader.state = LEX_PATH;
	if (byte < 0x20 || byte == 0x7f || byte == '/' || byte == '\\') {
		lex_refuse(request);
	} else if (http_byte_is(byte, BYTE_TARGET) && byte != '%' && byte != '?') {
		lex_emit(request, byte);
	} else {
		lex_emit(request, '%');
		lex_emit(request, lex_upper_digit(byte >> 4));
		lex_emit(request, lex_upper_digit(byte & 15));
	}
}
