/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reads a request's head, byte by byte, into its canonical form: src/policy/http/canonical.ts says what that is, and
 * parse.ts is what this is held against. A head that is not canonical is refused; nothing is guessed.
 */
#pragma once

#include "http_target.h"

/* The header lines that change how a request is read. */
enum lex_kind {
	KIND_OTHER = 0,
	KIND_HOST,
	KIND_LENGTH,
	KIND_CODING,
	KIND_EXPECT,
};

/* Fixed texts, their first byte lowest. */
#define LEX_PROTOCOL 0x002e312f50545448ULL /* HTTP/1. */
#define LEX_SCHEME_TEXT 0x70747468ULL      /* http */

static __always_inline __u8 lex_fixed(__u64 text, __u32 at)
{
	return text >> (8 * (at & 7));
}

static __always_inline void lex_in_scheme(struct http_request *request, __u8 byte)
{
	__u32 count = request->reader.count;

	/* http, perhaps s, then ://; the count is 4 before the s or the colon, 5 before the colon, 6 and 7 before slashes. */
	if (count < 4 && (byte | 0x20) == lex_fixed(LEX_SCHEME_TEXT, count))
		request->reader.count = count + 1;
	else if (count == 4 && (byte | 0x20) == 's')
		request->reader.count = 5;
	else if ((count == 4 || count == 5) && byte == ':')
		request->reader.count = 6;
	else if (count == 6 && byte == '/')
		request->reader.count = 7;
	else if (count == 7 && byte == '/') {
		request->reader.state = LEX_AUTHORITY;
		request->flags |= HTTP_HAS_AUTHORITY;
		request->authority = request->reader.at + 1;
	} else
		lex_refuse(request);
}

static __always_inline void lex_in_version(struct http_request *request, __u8 byte)
{
	__u32 count = request->reader.count++;

	if (count < 7) {
		if (byte != lex_fixed(LEX_PROTOCOL, count))
			lex_refuse(request);
	} else if (count == 7) {
		if (byte == '0')
			request->flags |= HTTP_IS_10;
		else if (byte != '1')
			lex_refuse(request);
	} else if (count == 8) {
		if (byte != '\r')
			lex_refuse(request);
	} else if (byte == '\n') {
		request->reader.state = LEX_LINE;
	} else {
		lex_refuse(request);
	}
}

/* Eight bytes of the head from `at` on, as letters in lower case: for comparing with tokens, which are no controls. */
static __always_inline __u64 lex_word(const struct http_request *request, __u32 at)
{
	return *(const __u64 *)(request->head + HTTP_AT(at));
}

#define LOWER_8 0x2020202020202020ULL
#define TEXT_8(a, b, c, d, e, f, g, h)                                                                             \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | (__u64)(f) << 40 | \
	 (__u64)(g) << 48 | (__u64)(h) << 56)
#define FIRST(n) (~0ULL >> (8 * (8 - (n))))

static __always_inline void lex_method_end(struct http_request *request)
{
	__u64 word = lex_word(request, 0);

	request->method_length = request->reader.at;
	if (request->reader.at == 0 || request->reader.at > HTTP_METHOD)
		lex_refuse(request);
	if (request->reader.at == 7 && (word & FIRST(7)) == TEXT_8('C', 'O', 'N', 'N', 'E', 'C', 'T', 0))
		lex_refuse(request);
	if (request->reader.at == 4 && (word & FIRST(4)) == TEXT_8('H', 'E', 'A', 'D', 0, 0, 0, 0))
		request->flags |= HTTP_IS_HEAD;
	request->reader.state = LEX_TARGET;
}

static __always_inline void lex_name_end(struct http_request *request)
{
	struct http_line *line = &request->line[request->lines & 127];
	__u32 length = request->reader.at - line->name;
	__u64 first = lex_word(request, line->name) | LOWER_8;
	__u64 second = lex_word(request, line->name + 8) | LOWER_8;
	__u8 last = request->head[HTTP_AT(line->name + 16)] | 0x20;

	line->name_length = length;
	request->reader.kind = KIND_OTHER;
	if (length == 4 && ((first ^ TEXT_8('h', 'o', 's', 't', 0, 0, 0, 0)) & FIRST(4)) == 0) {
		request->reader.kind = KIND_HOST;
		if (request->flags & HTTP_HAS_HOST)
			lex_refuse(request);
		request->flags |= HTTP_HAS_HOST;
	} else if (length == 6 && ((first ^ TEXT_8('e', 'x', 'p', 'e', 'c', 't', 0, 0)) & FIRST(6)) == 0) {
		request->reader.kind = KIND_EXPECT;
	} else if (length == 7 && ((first ^ TEXT_8('u', 'p', 'g', 'r', 'a', 'd', 'e', 0)) & FIRST(7)) == 0) {
		request->flags |= HTTP_UPGRADES;
	} else if (length == 14 && first == TEXT_8('c', 'o', 'n', 't', 'e', 'n', 't', '-') &&
		   ((second ^ TEXT_8('l', 'e', 'n', 'g', 't', 'h', 0, 0)) & FIRST(6)) == 0) {
		request->reader.kind = KIND_LENGTH;
		if (request->flags & (HTTP_HAS_LENGTH | HTTP_IS_CHUNKED))
			lex_refuse(request);
		request->flags |= HTTP_HAS_LENGTH;
	} else if (length == 14 && first == TEXT_8('h', 't', 't', 'p', '2', '-', 's', 'e') &&
		   ((second ^ TEXT_8('t', 't', 'i', 'n', 'g', 's', 0, 0)) & FIRST(6)) == 0) {
		request->flags |= HTTP_UPGRADES;
	} else if (length == 17 && first == TEXT_8('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') &&
		   second == TEXT_8('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') && last == 'g') {
		request->reader.kind = KIND_CODING;
		if (request->flags & (HTTP_HAS_LENGTH | HTTP_IS_CHUNKED))
			lex_refuse(request);
		request->flags |= HTTP_IS_CHUNKED;
	}
	request->reader.state = LEX_BEFORE_VALUE;
	request->reader.count = 0;
}

/* A byte of a value: what is special about the line looks at it too. */
static __always_inline void lex_value_byte(struct http_request *request, __u8 byte)
{
	bool space = byte == ' ' || byte == '\t';

	if (!http_byte_is(byte, BYTE_VALUE)) {
		lex_refuse(request);
		return;
	}
	if (space)
		return;
	if (request->reader.kind == KIND_HOST || request->reader.kind == KIND_LENGTH) {
		/* No spaces within. */
		if (request->reader.value_end != request->reader.at)
			lex_refuse(request);
		if (!http_byte_is(byte, request->reader.kind == KIND_HOST ? BYTE_HOST : BYTE_DIGIT))
			lex_refuse(request);
		if (request->reader.kind == KIND_LENGTH) {
			request->content_length = request->content_length * 10 + (byte - '0');
			/* 19 digits are less than 2^64. */
			if (++request->reader.count > 19)
				lex_refuse(request);
		}
	}
	request->reader.value_end = request->reader.at + 1;
}

static __always_inline void lex_value_end(struct http_request *request)
{
	struct http_line *line = &request->line[request->lines & 127];
	__u32 length = request->reader.value_end - line->value;
	__u64 first = lex_word(request, line->value);
	__u64 second = lex_word(request, line->value + 8);

	line->value_length = length;
	switch (request->reader.kind) {
	case KIND_HOST:
		request->host = line->value;
		request->host_length = length;
		break;
	case KIND_LENGTH:
		if (request->reader.count == 0 || request->content_length >> 63)
			lex_refuse(request);
		break;
	case KIND_CODING:
		if (length != 7 || (first & FIRST(7)) != TEXT_8('c', 'h', 'u', 'n', 'k', 'e', 'd', 0))
			lex_refuse(request);
		break;
	case KIND_EXPECT:
		/* Bytes above 0x20 but letters differ from their neighbours of bit 0x20: `1` and 0x11, which no value has. */
		if (length != 12 || (first | LOWER_8) != TEXT_8('1', '0', '0', '-', 'c', 'o', 'n', 't') ||
		    ((second | LOWER_8) & FIRST(4)) != TEXT_8('i', 'n', 'u', 'e', 0, 0, 0, 0))
			lex_refuse(request);
		break;
	}
	request->lines++;
	request->reader.state = LEX_VALUE_LF;
}

#define LOW_BITS_8 0x0101010101010101ULL
#define HIGH_BITS_8 0x8080808080808080ULL

/* Goes on by eight bytes where a value has eight that nothing is special about. */
static __always_inline bool lex_leap(struct http_request *request)
{
	__u64 word = lex_word(request, request->reader.at);
	__u64 deleted = word ^ (LOW_BITS_8 * 0x7f);
	__u64 odd;

	if (request->reader.kind != KIND_OTHER || request->reader.at + 8 > request->length)
		return false;
	odd = ((word - LOW_BITS_8 * 0x20) & ~word) | ((deleted - LOW_BITS_8) & ~deleted);
	if ((odd & HIGH_BITS_8) || word >> 56 == ' ')
		return false;
	request->reader.at += 8;
	request->reader.value_end = request->reader.at;
	return true;
}

static __always_inline void lex_byte(struct http_request *request, __u8 byte)
{

	switch (request->reader.state) {
	case LEX_METHOD:
		if (byte == ' ')
			lex_method_end(request);
		else if (!http_byte_is(byte, BYTE_METHOD))
			lex_refuse(request);
		break;
	case LEX_TARGET:
		if (byte == '/') {
			lex_path_begin(request);
		} else if ((byte | 0x20) == 'h') {
			request->reader.state = LEX_SCHEME;
			request->reader.count = 1;
		} else if (byte == '*' && request->method_length == 7 &&
			   (lex_word(request, 0) & FIRST(7)) == TEXT_8('O', 'P', 'T', 'I', 'O', 'N', 'S', 0)) {
			request->reader.state = LEX_STAR;
		} else {
			lex_refuse(request);
		}
		break;
	case LEX_STAR:
		if (byte != ' ')
			lex_refuse(request);
		request->target[0] = '*';
		request->reader.out = 1;
		request->path_length = 1;
		lex_target_end(request);
		break;
	case LEX_SCHEME:
		lex_in_scheme(request, byte);
		break;
	case LEX_AUTHORITY:
		if (http_byte_is(byte, BYTE_HOST))
			break;
		if (byte != '/' && byte != '?' && byte != ' ')
			lex_refuse(request);
		request->authority_length = request->reader.at - request->authority;
		lex_path_begin(request);
		if (byte != '/')
			lex_path_end(request, byte);
		break;
	case LEX_PATH:
		lex_path(request, byte);
		break;
	case LEX_PATH_HEX1:
	case LEX_QUERY_HEX1:
	case LEX_QUERY_HEX2:
		if (!http_byte_is(byte, BYTE_HEX))
			lex_refuse(request);
		if (request->reader.state != LEX_PATH_HEX1)
			lex_emit(request, byte);
		request->reader.hex = http_hex(byte);
		request->reader.state = request->reader.state == LEX_QUERY_HEX2 ? LEX_QUERY : request->reader.state + 1;
		break;
	case LEX_PATH_HEX2:
		if (!http_byte_is(byte, BYTE_HEX))
			lex_refuse(request);
		lex_escaped(request, request->reader.hex << 4 | http_hex(byte));
		break;
	case LEX_QUERY:
		if (byte == ' ') {
			lex_target_end(request);
			break;
		}
		if (!http_byte_is(byte, BYTE_TARGET))
			lex_refuse(request);
		lex_emit(request, byte);
		if (byte == '%')
			request->reader.state = LEX_QUERY_HEX1;
		break;
	case LEX_VERSION:
		lex_in_version(request, byte);
		break;
	case LEX_LINE:
		if (byte == '\r') {
			request->reader.state = LEX_END_LF;
			break;
		}
		if (request->lines >= HTTP_HEADERS) {
			request->reader.reason = HTTP_HEAD_TOO_BIG;
			break;
		}
		if (!http_byte_is(byte, BYTE_TOKEN))
			lex_refuse(request);
		request->line[request->lines & 127].name = request->reader.at;
		request->reader.state = LEX_NAME;
		break;
	case LEX_NAME:
		if (byte == ':')
			lex_name_end(request);
		else if (!http_byte_is(byte, BYTE_TOKEN))
			lex_refuse(request);
		break;
	case LEX_BEFORE_VALUE:
		if (byte == ' ' || byte == '\t')
			break;
		request->line[request->lines & 127].value = request->reader.at;
		request->reader.value_end = request->reader.at;
		request->reader.state = LEX_VALUE;
		/* fall through */
	case LEX_VALUE:
		if (byte == '\r')
			lex_value_end(request);
		else
			lex_value_byte(request, byte);
		break;
	case LEX_VALUE_LF:
		if (byte != '\n')
			lex_refuse(request);
		request->reader.state = LEX_LINE;
		break;
	case LEX_END_LF:
		if (byte != '\n')
			lex_refuse(request);
		request->reader.state = LEX_DONE;
		break;
	default:
		lex_refuse(request);
	}
}

struct lex {
	struct http_request *request;
};

static long lex_step(__u32 index, struct lex *lex)
{
	struct http_request *request = lex->request;

	(void)index;
	if (request->reader.at >= request->length)
		return 1;
	if (request->reader.state == LEX_VALUE && lex_leap(request))
		return 0;
	lex_byte(request, request->head[HTTP_AT(request->reader.at)]);
	request->reader.at++;
	return request->reader.reason ? 1 : 0;
}

struct lex_same {
	const struct http_request *request;
	__u32 differs;
};

static long lex_same_step(__u32 index, struct lex_same *same)
{
	const struct http_request *request = same->request;

	same->differs = http_lower(request->head[HTTP_AT(request->authority + index)]) !=
			http_lower(request->head[HTTP_AT(request->host + index)]);
	return same->differs ? 1 : 0;
}

/*
 * Reads a head that is complete: `request->head` and `length` are filled in.
 * @returns enum drop_reason: FORWARDED, HTTP_MALFORMED or HTTP_HEAD_TOO_BIG
 */
static __always_inline enum drop_reason http_lex(struct http_request *request)
{
	struct lex lex = { .request = request };

	__builtin_memset(&request->reader, 0, sizeof(request->reader));
	request->flags = 0;
	request->lines = 0;
	request->content_length = 0;
	request->authority_length = 0;
	request->host_length = 0;
	bpf_loop(HTTP_HEAD, lex_step, &lex, 0);
	if (request->reader.reason)
		return request->reader.reason;
	if (request->reader.state != LEX_DONE)
		return HTTP_MALFORMED;
	if (!(request->flags & HTTP_HAS_HOST) && (!(request->flags & HTTP_IS_10) || (request->flags & HTTP_HAS_AUTHORITY)))
		return HTTP_MALFORMED;
	if ((request->flags & HTTP_IS_CHUNKED) && (request->flags & HTTP_IS_10))
		return HTTP_MALFORMED;
	if (request->flags & HTTP_HAS_AUTHORITY) {
		struct lex_same same = { .request = request };

		if (request->authority_length != request->host_length)
			return HTTP_MALFORMED;
		bpf_loop(request->host_length & (HTTP_HEAD - 1), lex_same_step, &same, 0);
		if (same.differs)
			return HTTP_MALFORMED;
	}
	return FORWARDED;
}
