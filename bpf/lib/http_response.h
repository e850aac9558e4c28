/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Follows what a pod answers on a connection whose requests are read: where each answer ends (RFC 9112 section 6.3), and
 * with which status. It decides nothing about the answers, they pass whatever they are; it knows whether the kernel may
 * answer a request itself without getting into another answer's way.
 */
#pragma once

#include "http_class.h"
#include "http_event.h"

#define RESPONSE_WINDOW 256
#define RESPONSE_STEPS 4096

/* FNV-1a of content-length and transfer-encoding: a name that has their hash misleads about its own answer only. */
#define RESPONSE_HASH 0x811c9dc5U
#define RESPONSE_PRIME 0x01000193U
#define RESPONSE_CONTENT_LENGTH 0x4df9451dU
#define RESPONSE_TRANSFER_ENCODING 0xddb4744cU

/* Where in a packet's payload the reader is; one for each CPU, since nothing interrupts from_pod. */
struct response_reader {
	__u32 at;
	__u32 length;
	__u32 offset; /* of the payload in the frame */
	__u32 window;
	__u32 loaded;
	__u32 pad;
	__u8 bytes[RESPONSE_WINDOW + 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct response_reader);
} response_readers SEC(".maps");

struct response {
	struct __sk_buff *skb;
	struct http_answers *answers;
	struct response_reader *reader;
	const struct ct_key *key;
	__u32 ifindex;
};

static __always_inline void response_end(struct http_answers *answers)
{
	answers->phase = ANSWER_STATUS;
	answers->at = 0;
	answers->answered++;
}

static __always_inline void response_say(struct response *response)
{
	struct http_answers *answers = response->answers;

	if (!answers->saying || answers->said.number != answers->answered)
		return;
	http_event_say(response->key, &answers->said, response->ifindex, FORWARDED, answers->status);
	*(volatile __u32 *)&answers->saying = 0;
}

/* Says where a body ends that begins behind the byte at hand: whoever knows what the pod has written knows if that is all. */
static __always_inline void response_ends(struct response *response)
{
	const struct response_reader *reader = response->reader;
	struct http_answers *answers = response->answers;

	answers->flags &= ~ANSWER_ENDS;
	if (answers->remaining >> 31)
		return;
	answers->ends = answers->next - (reader->length - reader->at - 1) + (__u32)answers->remaining;
	answers->flags |= ANSWER_ENDS;
}

/* The head's empty line: what follows it is the next answer's, or this one's body. */
static __always_inline void response_head_end(struct response *response)
{
	struct http_answers *answers = response->answers;
	bool head = answers->heads >> (answers->answered & 63) & 1;

	if (answers->asked == answers->answered) {
		answers->phase = ANSWER_LOST;
		return;
	}
	if (answers->status >= 100 && answers->status < 200 && answers->status != 101) {
		answers->phase = ANSWER_STATUS;
		answers->at = 0;
		return;
	}
	response_say(response);
	if (answers->status == 101)
		answers->phase = ANSWER_REST;
	else if (head || answers->status == 204 || answers->status == 304)
		response_end(answers);
	else if (answers->flags & ANSWER_CHUNKED)
		answers->phase = ANSWER_CHUNK;
	else if (!(answers->flags & ANSWER_SIZED))
		answers->phase = ANSWER_REST;
	else if (answers->remaining == 0)
		response_end(answers);
	else {
		response_ends(response);
		answers->phase = ANSWER_BODY;
	}
	if (answers->phase == ANSWER_CHUNK)
		answers->remaining = 0;
}

static __always_inline void response_name_end(struct http_answers *answers)
{
	if (answers->hash == RESPONSE_CONTENT_LENGTH) {
		answers->phase = ANSWER_LENGTH;
		answers->flags |= ANSWER_SIZED;
		answers->remaining = 0;
		return;
	}
	if (answers->hash == RESPONSE_TRANSFER_ENCODING)
		answers->flags |= ANSWER_CHUNKED;
	answers->phase = ANSWER_SKIP;
}

static __always_inline void response_byte(struct response *response, __u8 byte)
{
	struct http_answers *answers = response->answers;

	switch (answers->phase) {
	case ANSWER_STATUS:
		/* HTTP/1.1 200 OK */
		if (answers->at == 0) {
			answers->status = 0;
			answers->flags &= ~(ANSWER_CHUNKED | ANSWER_SIZED);
			if (byte != 'H')
				answers->phase = ANSWER_LOST;
		}
		if (answers->at >= 9 && answers->at <= 11) {
			answers->status = answers->status * 10 + (byte - '0');
			if (byte < '0' || byte > '9')
				answers->phase = ANSWER_LOST;
		}
		if (++answers->at == 12 && answers->phase == ANSWER_STATUS)
			answers->phase = ANSWER_SKIP;
		return;
	case ANSWER_LINE:
		if (byte == '\r')
			return;
		if (byte == '\n') {
			response_head_end(response);
			return;
		}
		answers->hash = RESPONSE_HASH;
		answers->phase = ANSWER_NAME;
		/* fall through */
	case ANSWER_NAME:
		if (byte == ':')
			response_name_end(answers);
		else if (byte == '\n')
			answers->phase = ANSWER_LOST;
		else
			answers->hash = (answers->hash ^ http_lower(byte)) * RESPONSE_PRIME;
		return;
	case ANSWER_LENGTH:
		if (byte >= '0' && byte <= '9')
			answers->remaining = answers->remaining * 10 + (byte - '0');
		else if (byte == '\n')
			answers->phase = ANSWER_LINE;
		else if (byte != ' ' && byte != '\r' && byte != '\t')
			answers->phase = ANSWER_LOST;
		return;
	case ANSWER_SKIP:
		if (byte == '\n')
			answers->phase = ANSWER_LINE;
		return;
	case ANSWER_CHUNK:
		if (http_byte_is(byte, BYTE_HEX)) {
			if (answers->remaining >> 56)
				answers->phase = ANSWER_LOST;
			answers->remaining = answers->remaining << 4 | http_hex(byte);
			return;
		}
		answers->phase = ANSWER_CHUNK_SKIP;
		/* fall through */
	case ANSWER_CHUNK_SKIP:
		if (byte != '\n')
			return;
		answers->phase = answers->remaining == 0 ? ANSWER_TRAILER : ANSWER_CHUNK_DATA;
		answers->remaining += 2;
		return;
	case ANSWER_TRAILER:
		if (byte == '\r')
			return;
		if (byte == '\n') {
			answers->remaining = 0;
			response_end(answers);
		} else {
			answers->phase = ANSWER_TRAILER_SKIP;
		}
		return;
	case ANSWER_TRAILER_SKIP:
		if (byte == '\n')
			answers->phase = ANSWER_TRAILER;
		return;
	}
}

static __always_inline bool response_load(struct response *response)
{
	struct response_reader *reader = response->reader;
	__u32 left = reader->length - reader->at;

	if (reader->at >= reader->window && reader->at - reader->window < reader->loaded)
		return true;
	reader->window = reader->at;
	if (left > RESPONSE_WINDOW)
		left = RESPONSE_WINDOW;
	HTTP_WITHIN(left, RESPONSE_WINDOW);
	reader->loaded = left;
	return bpf_skb_load_bytes(response->skb, reader->offset + reader->window, reader->bytes, left) == 0;
}

#define LOWER_LETTERS 0x2020202020202020ULL
#define TEXT_CONTENT 0x2d746e65746e6f63ULL  /* content- */
#define TEXT_TRANSFER 0x726566736e617274ULL /* transfer */

static __always_inline __u64 response_word(const struct response_reader *reader, __u32 at)
{
	return *(const __u64 *)(reader->bytes + (at & (RESPONSE_WINDOW - 1)));
}

/* The place of the lowest bit that is set, of one for each byte: 0x80 is 0, 0x8000 is 1. */
static __always_inline __u32 response_first(__u64 bits)
{
	__u32 place = 0;

	if (!(bits & 0xffffffffULL)) {
		place = 4;
		bits >>= 32;
	}
	if (!(bits & 0xffff)) {
		place += 2;
		bits >>= 16;
	}
	return bits & 0x80 ? place : place + 1;
}

/*
 * Goes on by more than a byte where nothing is asked of what follows: over eight bytes of a line, or to its end; over the
 * status line's beginning; at a line's begin, past every name but the two that count.
 */
static __always_inline bool response_leap(struct response_reader *reader, struct http_answers *answers)
{
	__u32 at = reader->at - reader->window;
	__u64 word, ends;

	if (at + 8 > reader->loaded)
		return false;
	word = response_word(reader, at);
	if (answers->phase == ANSWER_STATUS) {
		/* HTTP/1.1 200 */
		if (answers->at != 0 || at + 12 > reader->loaded || (word & 0xffffffffffULL) != 0x2f50545448ULL)
			return false;
		word = response_word(reader, at + 4) >> 40;
		if (((word + 0x060606) | word) & 0xc0c0c0 || (word & 0x303030) != 0x303030)
			return false;
		answers->status = (word & 15) * 100 + (word >> 8 & 15) * 10 + (word >> 16 & 15);
		answers->flags &= ~(ANSWER_CHUNKED | ANSWER_SIZED);
		answers->phase = ANSWER_SKIP;
		reader->at += 12;
		return true;
	}
	if (answers->phase == ANSWER_LINE) {
		__u64 name = word | LOWER_LETTERS;

		if ((word & 0xff) == '\r' || (word & 0xff) == '\n' || name == TEXT_TRANSFER)
			return false;
		/* Of content-…, only -l… is of interest. */
		if (name == TEXT_CONTENT &&
		    (at + 9 > reader->loaded || (reader->bytes[(at + 8) & (RESPONSE_WINDOW - 1)] | 0x20) == 'l'))
			return false;
		answers->phase = ANSWER_SKIP;
	}
	if (answers->phase != ANSWER_SKIP)
		return false;
	word ^= 0x0a0a0a0a0a0a0a0aULL;
	ends = (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL;
	if (!ends) {
		reader->at += 8;
		return true;
	}
	reader->at += response_first(ends) + 1;
	answers->phase = ANSWER_LINE;
	return true;
}

static long response_step(__u32 index, struct response *response)
{
	struct http_answers *answers = response->answers;
	struct response_reader *reader = response->reader;
	__u32 left = reader->length - reader->at;

	(void)index;
	if (left == 0 || answers->phase >= ANSWER_REST)
		return 1;
	if (answers->phase == ANSWER_BODY || answers->phase == ANSWER_CHUNK_DATA) {
		if (answers->remaining > left) {
			answers->remaining -= left;
			reader->at = reader->length;
			return 1;
		}
		reader->at += (__u32)answers->remaining;
		answers->remaining = 0;
		if (answers->phase == ANSWER_BODY)
			response_end(answers);
		else
			answers->phase = ANSWER_CHUNK;
		return 0;
	}
	if (!response_load(response)) {
		answers->phase = ANSWER_LOST;
		return 1;
	}
	if (response_leap(reader, answers))
		return 0;
	response_byte(response, reader->bytes[(reader->at - reader->window) & (RESPONSE_WINDOW - 1)]);
	reader->at++;
	return 0;
}

/*
 * A packet of the pod's on such a connection. It may come twice; one that comes too early ends what is known.
 */
SUBPROGRAM int http_response(struct __sk_buff *skb, const struct packet *packet, const struct ct_key *key)
{
	struct response response = { .skb = skb, .key = key, .ifindex = skb->ifindex };
	struct response_reader *reader;
	struct ct_key own;
	__u32 zero = 0, headers, seen;
	__be32 sequence;

	if (!packet || !key)
		return -1;
	headers = (__u32)(packet->l4 - packet->l3) + packet->l4_header;
	if (packet->length <= headers)
		return 0;
	own = *key;
	response.answers = bpf_map_lookup_elem(&http_answers, &own);
	reader = bpf_map_lookup_elem(&response_readers, &zero);
	if (!response.answers || !reader || response.answers->phase == ANSWER_LOST)
		return 0;
	if (bpf_skb_load_bytes(skb, packet->l4 + 4, &sequence, sizeof(sequence)) < 0)
		return -1;
	response.reader = reader;
	reader->length = packet->length - headers;
	reader->offset = packet->l4 + packet->l4_header;
	reader->at = 0;
	reader->window = 0;
	reader->loaded = 0;
	if (response.answers->flags & ANSWER_SEEN) {
		seen = response.answers->next - bpf_ntohl(sequence);
		if ((__s32)seen < 0) {
			response.answers->phase = ANSWER_LOST;
			return 0;
		}
		if (seen >= reader->length)
			return 0;
		reader->at = seen;
	}
	response.answers->flags |= ANSWER_SEEN;
	response.answers->next = bpf_ntohl(sequence) + reader->length;
	bpf_loop(RESPONSE_STEPS, response_step, &response, 0);
	if (reader->at != reader->length && response.answers->phase < ANSWER_REST)
		response.answers->phase = ANSWER_LOST;
	return 0;
}
