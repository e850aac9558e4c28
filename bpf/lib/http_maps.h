/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps of what reads requests; those of policy are in maps.h. */
#pragma once

#include "http_layout.h"
#include "maps.h"

/* Where a stream's bytes come from; tests put them somewhere else. */
#ifndef HTTP_LOAD
#define HTTP_LOAD(skb, offset, to, length) bpf_skb_load_bytes(skb, offset, to, length)
#endif

/*
 * A length that is 1 to `most` already, a power of two, made so that the verifier sees it, also Linux 6.1's. The barrier
 * keeps the compiler from seeing that it changes nothing.
 */
#define HTTP_WITHIN(length, most)                    \
	do {                                         \
		asm volatile("" : "+r"(length));     \
		(length) = (((length)-1) & ((most)-1)) + 1; \
	} while (0)

/* As many sockets as can be read at once; a connection beyond them passes nothing. */
#define HTTP_STREAMS 65536
/* Messages that one packet may have; one of more is reset. */
#define HTTP_AT_A_TIME 64
/* Requests that one CPU can be in the middle of: the verdict runs in interrupts, and in system calls that they interrupt. */
#define HTTP_AT_ONCE 4

/* By the cookie of a pod's network namespace, the host side of its veth: sockets of others are none of ours. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} http_pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * HTTP_STREAMS); /* never full before the others are: what is in it is not passed unread */
	__type(key, struct http_key);
	__type(value, __u64);
} http_sockets SEC(".maps");

/*
 * What reads, at 0. A socket keeps the program that was its sockhash's when it was put there, so that one only leads
 * here: the reader is replaced under all sockets at once, as programs at devices are.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} http_programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HTTP_STREAMS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct http_key);
	__type(value, struct http_stream);
} http_streams SEC(".maps");

/* Heads that come in pieces: so many at once, and those beyond are reset. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct http_key);
	__type(value, struct http_partial);
} http_partials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct http_partial);
} http_no_partial SEC(".maps");

/* By connection; made and removed with its entry in http_streams. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HTTP_STREAMS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ct_key);
	__type(value, struct http_answers);
} http_answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct http_settings);
} http_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct http_limit);
} http_limits SEC(".maps");

/* What a connection begins with: too large for a stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct http_answers);
} http_no_answers SEC(".maps");

/* How often policy was asked about a request on each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} http_turns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HTTP_AT_ONCE);
	__type(key, __u32);
	__type(value, struct http_request);
} http_requests SEC(".maps");

/*
 * Room for one request, to be given back. Whoever reads one in a system call may be interrupted on its CPU by another reader, so
 * the first free place is taken; NULL where there is none.
 */
static __always_inline struct http_request *http_request_take(void)
{
#pragma unroll
	for (__u32 i = 0; i < HTTP_AT_ONCE; i++) {
		__u32 index = i;
		struct http_request *request = bpf_map_lookup_elem(&http_requests, &index);

		if (request && __sync_val_compare_and_swap(&request->busy, 0, 1) == 0)
			return request;
	}
	return NULL;
}

static __always_inline void http_request_give(struct http_request *request)
{
	*(volatile __u32 *)&request->busy = 0;
}
