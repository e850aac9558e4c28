/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which of a rule set's alternatives a request is: layout.h says how its matcher tells, src/policy/http/run.ts does the
 * same in TypeScript.
 */
#pragma once

#include "http_class.h"
#include "http_maps.h"

/* Where a DFA is. In a map, as the reader (http_layout.h). */
struct match {
	struct http_request *request;
	const struct http_matcher *matcher;
};

static __always_inline void match_byte(struct match *match, __u8 byte)
{
	const struct http_matcher *matcher = match->matcher;
	struct http_reader *reader = &match->request->reader;
	__u32 index = matcher->first_row + reader->state;
	struct http_row *row = bpf_map_lookup_elem(&http_rows, &index);
	__u32 class = matcher->classes[byte];

	/* A row of another matcher's, should this one be in the middle of being written, is a wrong answer, not a fault. */
	reader->state = row && class < HTTP_CLASSES ? row->next[class] : 0;
}

static long match_head_step(__u32 index, struct match *match)
{
	struct http_request *request = match->request;

	match_byte(match, request->head[HTTP_AT(request->reader.from + index)]);
	return 0;
}

static long match_lower_step(__u32 index, struct match *match)
{
	struct http_request *request = match->request;

	match_byte(match, http_lower(request->head[HTTP_AT(request->reader.from + index)]));
	return 0;
}

static long match_target_step(__u32 index, struct match *match)
{
	match_byte(match, match->request->target[HTTP_AT(index)]);
	return 0;
}

/* The accept of the state that was reached; 0, which accepts nothing, where the tables are not to be had. */
static __always_inline __u32 match_accept(const struct match *match)
{
	__u32 index = match->matcher->first_row + match->request->reader.state;
	struct http_row *row = bpf_map_lookup_elem(&http_rows, &index);

	return row ? row->accept : 0;
}

/* Leaves standing what the accept does. */
static __always_inline void match_keep(const struct match *match, struct http_bits *bits, __u32 accept)
{
	__u32 index = match->matcher->first_accept + accept;
	struct http_bits *other = bpf_map_lookup_elem(&http_accepts, &index);

	for (__u32 word = 0; word < HTTP_WORDS; word++) {
		if (word * 64 >= match->matcher->alternatives)
			break;
		bits->bits[word] &= other ? other->bits[word] : 0;
	}
}

static __always_inline void match_target(struct match *match, struct http_bits *bits, __u32 start, __u32 length)
{
	match->request->reader.state = start;
	bpf_loop(length & (2 * HTTP_HEAD - 1), match_target_step, match, 0);
	match_keep(match, bits, match_accept(match));
}

/* One header line; those that are not asked about leave everything. */
static long match_line_step(__u32 index, struct match *match)
{
	struct http_request *request = match->request;
	struct http_line *line = &request->line[index & 127];
	struct http_reader *reader = &request->reader;
	__u32 slot;

	reader->state = match->matcher->name_start;
	reader->from = line->name;
	bpf_loop(line->name_length, match_lower_step, match, 0);
	slot = match_accept(match);
	if (slot == 0 || slot > HTTP_NAMES)
		return 0;
	slot--;
	reader->count |= 1U << slot;
	reader->state = match->matcher->headers[slot & (HTTP_NAMES - 1)].start;
	if (reader->state == 0)
		return 0;
	reader->from = line->value;
	bpf_loop(line->value_length, match_head_step, match, 0);
	match_keep(match, &request->bits, match_accept(match));
	return 0;
}

static __always_inline void match_lines(struct match *match)
{
	struct http_request *request = match->request;
	const struct http_matcher *matcher = match->matcher;

	request->reader.count = 0;
	if (matcher->name_start != 0)
		bpf_loop(request->lines & 127, match_line_step, match, 0);
	for (__u32 slot = 0; slot < HTTP_NAMES; slot++) {
		if (slot >= matcher->header_count)
			break;
		if (!(request->reader.count & (1U << slot)))
			match_keep(match, &request->bits, matcher->headers[slot].absent_accept);
	}
}

static __always_inline void match_all(struct http_bits *bits, __u32 count)
{
	for (__u32 word = 0; word < HTTP_WORDS; word++) {
		__u32 first = word * 64;

		bits->bits[word] = first >= count ? 0 : count - first >= 64 ? ~0ULL : (1ULL << (count - first)) - 1;
	}
}

/* Fills in request->bits with what the matcher of a rule set says of the request; a set without one leaves them alone. */
SUBPROGRAM int http_match(struct http_request *request, __u32 set)
{
	struct rule_set *rules = bpf_map_lookup_elem(&rule_sets, &set);
	struct match match = { .request = request };
	__u32 index;

	if (!request || !rules || rules->matcher == 0)
		return 0;
	index = rules->matcher;
	match.matcher = bpf_map_lookup_elem(&http_matchers, &index);
	if (!match.matcher)
		return -1;
	match_all(&request->bits, match.matcher->alternatives);
	if (match.matcher->method_start != 0) {
		request->reader.state = match.matcher->method_start;
		request->reader.from = 0;
		bpf_loop(request->method_length & 63, match_head_step, &match, 0);
		match_keep(&match, &request->bits, match_accept(&match));
	}
	if (match.matcher->path_start != 0)
		match_target(&match, &request->bits, match.matcher->path_start, request->path_length);
	if (match.matcher->target_start != 0)
		match_target(&match, &request->bits, match.matcher->target_start, request->target_length);
	if (match.matcher->host_start != 0) {
		if (request->flags & HTTP_HAS_HOST) {
			request->reader.state = match.matcher->host_start;
			request->reader.from = request->host;
			bpf_loop(request->host_length, match_lower_step, &match, 0);
			match_keep(&match, &request->bits, match_accept(&match));
		} else {
			match_keep(&match, &request->bits, match.matcher->absent_host);
		}
	}
	match_lines(&match);
	return 0;
}
