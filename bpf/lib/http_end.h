/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a request's head ends: at its first empty line, whoever wrote it how. What it says is http_lex.h's. */
#pragma once

#include "http_class.h"
#include "http_layout.h"

struct head_end {
	struct http_request *request; /* `head` has reader.length bytes */
};

static __always_inline __u8 head_end_byte(const struct http_request *request, __u32 at)
{
	return request->head[at & (HTTP_HEAD - 1)];
}

/* An LF at `at`. */
static __always_inline void head_end_line(struct http_request *request, __u32 at)
{
	struct http_reader *reader = &request->reader;

	if (reader->first_line == 0)
		reader->first_line = at + 1;
	if (at == reader->line_end ||
	    (at == reader->line_end + 1 && head_end_byte(request, at - 1) == '\r')) {
		reader->end = at + 1;
		return;
	}
	reader->line_end = at + 1;
}

static long head_end_step(__u32 index, struct head_end *scan)
{
	struct http_request *request = scan->request;
	__u32 length = request->reader.length;
	__u32 at = index * 8;
	__u64 word;

	if (at >= length)
		return 1;
	word = *(const __u64 *)(request->head + (at & (HTTP_HEAD - 1)));
	word ^= 0x0a0a0a0a0a0a0a0aULL;
	if (((word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL) == 0)
		return 0;
	for (__u32 i = 0; i < 8; i++) {
		if (at + i >= length)
			return 1;
		if (head_end_byte(request, at + i) != '\n')
			continue;
		head_end_line(request, at + i);
		if (request->reader.end)
			return 1;
	}
	return 0;
}

/* The line that ends before `end`, from the message's begin on, is no request line: its speaker waits for an answer. */
static __always_inline bool head_end_odd(const struct http_request *request, __u32 end)
{
	__u64 version = *(const __u64 *)(request->head + ((end - 10) & (HTTP_HEAD - 1)));

	return end < 14 || (version & 0x00ffffffffffffffULL) != 0x002e312f50545448ULL; /* HTTP/1. */
}
