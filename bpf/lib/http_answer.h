/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Writes the kernel's own answer over the request that it is about. The kernel sends exactly as many bytes as the
 * message has (strp_msg.full_len is not the program's to change), so an answer is as long as the head that it is for:
 * a header's value, in a short one the reason phrase, is filled up with spaces, which are no part of it.
 */
#pragma once

#include "http_layout.h"

#define ANSWER_SHORTEST 35
#define ANSWER_FULL 72

#define ANSWER_403 "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nServer: myelin"
#define ANSWER_400 "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close"
#define ANSWER_431 "HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close"
#define ANSWER_SHORT_END "\r\nContent-Length:0\r\n\r\n"

struct answer_spaces {
	struct http_request *request;
};

static long answer_space(__u32 index, struct answer_spaces *spaces)
{
	*(__u64 *)(spaces->request->target + (index * 8 & (HTTP_HEAD - 1))) = 0x2020202020202020ULL;
	return 0;
}

/* Puts the answer of `length` bytes, ANSWER_SHORTEST to HTTP_HEAD, into request->target. */
static __always_inline void http_answer(struct http_request *request, enum drop_reason reason, __u32 length)
{
	struct answer_spaces spaces = { .request = request };
	__u8 *text = request->target;
	__u32 end;

	bpf_loop(length / 8 + 1, answer_space, &spaces, 0);
	if (reason == HTTP_DENIED)
		__builtin_memcpy(text, ANSWER_403, sizeof(ANSWER_403) - 1);
	else if (reason == HTTP_HEAD_TOO_BIG)
		__builtin_memcpy(text, ANSWER_431, sizeof(ANSWER_431) - 1);
	else
		__builtin_memcpy(text, ANSWER_400, sizeof(ANSWER_400) - 1);
	if (length >= ANSWER_FULL) {
		end = length - 4;
		__builtin_memcpy(text + (end & (HTTP_HEAD - 1)), "\r\n\r\n", 4);
		return;
	}
	__builtin_memset(text + 13, ' ', ANSWER_FULL - 13);
	end = length - (sizeof(ANSWER_SHORT_END) - 1);
	__builtin_memcpy(text + (end & 127), ANSWER_SHORT_END, sizeof(ANSWER_SHORT_END) - 1);
}
