/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether an answer of the kernel's own would come behind those of the server's that are due before it. */
#pragma once

#include "http_layout.h"

#include <bpf/bpf_core_read.h>

/* Of the kernel's structs, what is read; the places are this machine's kernel's (CO-RE). */
struct sk_buff {
	void *sk;
	char cb[48];
} __attribute__((preserve_access_index));

struct tcp_skb_cb {
	__u32 seq;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u32 write_seq;
} __attribute__((preserve_access_index));

/* What the pod has written on its socket so far, sent or not: the sequence number behind it. */
static __always_inline bool http_written(struct __sk_buff *skb, __u32 *sequence)
{
	__u64 socket = 0;

	/* The context is the kernel's packet; what it says of sockets by itself leaves this out. */
	return bpf_probe_read_kernel(&socket, sizeof(socket), (void *)skb + bpf_core_field_offset(struct sk_buff, sk)) == 0 &&
	       bpf_probe_read_kernel(sequence, sizeof(*sequence),
				     (void *)(socket + bpf_core_field_offset(struct tcp_sock, write_seq))) == 0;
}

/*
 * Whether the answers to all that the pod was given are before what is written on its socket now: they have left, or the
 * last of them is on its way and has been written to its end. `ends` is another answer's only after one more has ended.
 */
static __always_inline bool http_settled(struct __sk_buff *skb, struct http_answers *answers)
{
	__u32 answered = *(volatile __u32 *)&answers->answered;
	__u32 ends, written;

	if (answers->phase >= ANSWER_REST)
		return false;
	if (answers->settled == answers->passed)
		return true;
	if ((__s32)(answered - answers->passed) < 0) {
		if (answered + 1 != answers->passed || *(volatile __u8 *)&answers->phase != ANSWER_BODY ||
		    !(*(volatile __u8 *)&answers->flags & ANSWER_ENDS))
			return false;
		ends = *(volatile __u32 *)&answers->ends;
		if (!http_written(skb, &written) || ends != written ||
		    *(volatile __u32 *)&answers->answered != answered)
			return false;
	}
	answers->settled = answers->passed;
	return true;
}
