/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * In the proxy's network namespace: every connection that comes there is the proxy's, whatever its address and port.
 * Without a socket in the map there is no proxy that takes any, and its sender is told so by the namespace's own stack.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

#define FAMILY_INET 2

/* The sockets that listen: 0 for IPv4, 1 for IPv6. A socket that closes leaves it by itself. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} proxy_listeners SEC(".maps");

SEC("sk_lookup")
int proxy_lookup(struct bpf_sk_lookup *lookup)
{
	__u32 slot = lookup->family == FAMILY_INET ? 0 : 1;
	struct bpf_sock *listener;
	long failed;

	if (lookup->protocol != IPPROTO_TCP)
		return SK_PASS;
	listener = bpf_map_lookup_elem(&proxy_listeners, &slot);
	if (!listener)
		return SK_PASS;
	failed = bpf_sk_assign(lookup, listener, 0);
	bpf_sk_release(listener);
	return failed ? SK_DROP : SK_PASS;
}
