/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Writes the kernel's own answers over the packet that they are about. The kernel takes as many bytes as read as it sends,
 * so an answer is as long as what it is for: a header's value, in a short one the reason phrase, is filled up with spaces,
 * which are no part of it; a long one has a body of spaces.
 */
#pragma once

#include "http_layout.h"

#define ANSWER_SHORTEST 35
#define ANSWER_FULL 72
#define ANSWER_LONGEST 262144

#define ANSWER_403 "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nServer: myelin"
#define ANSWER_403_LAST "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close"
#define ANSWER_400 "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close"
#define ANSWER_431 "HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close"
#define ANSWER_SHORT_END "\r\nContent-Length:0\r\n\r\n"
/* The length's digits stand where the zeros do. */
#define ANSWER_BODY_403 "HTTP/1.1 403 Forbidden\r\nContent-Length: 000000\r\n\r\n"
#define ANSWER_BODY_400 "HTTP/1.1 400 Bad Requs\r\nContent-Length: 000000\r\n\r\n"
#define ANSWER_DIGITS 40

struct answer {
	struct __sk_buff *skb;
	struct http_request *request;
	__u32 from; /* where in the packet */
	__u32 length;
	__u32 failed;
};

static long answer_space(__u32 index, struct answer *answer)
{
	*(__u64 *)(answer->request->target + (index * 8 & (HTTP_HEAD - 1))) = 0x2020202020202020ULL;
	return 0;
}

static long answer_store(__u32 index, struct answer *answer)
{
	__u32 at = index * HTTP_HEAD;
	__u32 left = answer->length - at;

	if (at >= answer->length)
		return 1;
	if (left > HTTP_HEAD)
		left = HTTP_HEAD;
	HTTP_WITHIN(left, HTTP_HEAD);
	if (bpf_skb_store_bytes(answer->skb, answer->from + at, answer->request->target, left, 0) < 0)
		answer->failed = 1;
	return answer->failed ? 1 : 0;
}

/* One that is longer than a head: with a body. */
static __always_inline bool answer_long(struct answer *answer, enum drop_reason reason)
{
	__u8 head[sizeof(ANSWER_BODY_403)] = ANSWER_BODY_403;
	__u32 length = answer->length - (sizeof(ANSWER_BODY_403) - 1);

	if (reason != HTTP_DENIED)
		__builtin_memcpy(head, ANSWER_BODY_400, sizeof(head));
#pragma unroll
	for (int digit = 5; digit >= 0; digit--) {
		head[ANSWER_DIGITS + digit] = '0' + length % 10;
		length /= 10;
	}
	bpf_loop(HTTP_HEAD / 8, answer_space, answer, 0);
	bpf_loop(ANSWER_LONGEST / HTTP_HEAD, answer_store, answer, 0);
	return !answer->failed && bpf_skb_store_bytes(answer->skb, answer->from, head, sizeof(head) - 1, 0) == 0;
}

/* Makes `length` bytes of the packet an answer. @returns Whether there was room for one. */
static __noinline __attribute__((unused)) bool http_answer(struct __sk_buff *skb, struct http_request *request, __u32 from,
							   __u32 length)
{
	struct answer answer = { .skb = skb, .request = request, .from = from, .length = length };
	enum drop_reason reason = request->walk.reason;
	__u8 *text = request->target;
	__u32 end;

	if (length < ANSWER_SHORTEST || length > ANSWER_LONGEST)
		return false;
	if (length > HTTP_HEAD)
		return !request->walk.bodiless && answer_long(&answer, reason);
	bpf_loop(length / 8 + 1, answer_space, &answer, 0);
	if (reason == HTTP_DENIED && request->walk.last)
		__builtin_memcpy(text, ANSWER_403_LAST, sizeof(ANSWER_403_LAST) - 1);
	else if (reason == HTTP_DENIED)
		__builtin_memcpy(text, ANSWER_403, sizeof(ANSWER_403) - 1);
	else if (reason == HTTP_HEAD_TOO_BIG)
		__builtin_memcpy(text, ANSWER_431, sizeof(ANSWER_431) - 1);
	else
		__builtin_memcpy(text, ANSWER_400, sizeof(ANSWER_400) - 1);
	if (length >= ANSWER_FULL) {
		end = length - 4;
		__builtin_memcpy(text + (end & (HTTP_HEAD - 1)), "\r\n\r\n", 4);
	} else {
		__builtin_memset(text + 13, ' ', ANSWER_FULL - 13);
		end = length - (sizeof(ANSWER_SHORT_END) - 1);
		__builtin_memcpy(text + (end & 127), ANSWER_SHORT_END, sizeof(ANSWER_SHORT_END) - 1);
	}
	answer_store(0, &answer);
	return !answer.failed;
}
