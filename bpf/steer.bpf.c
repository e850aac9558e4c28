/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which thread of the engine a packet goes to, so that one thread has all of a security association. native/steer.h is the same
 * in the engine, which hands over what comes to the wrong thread: what is said here decides about speed, and about who gets
 * ESP while engine and kernel share the port.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

#define IP4_SOURCE 12
#define IP6_SOURCE 8
#define UDP_HEADER 8
#define KERNEL_ESP 0 /* place in esp_sockets; the engine's threads come behind it */
#define SPI_KERNEL (1u << 29)

/* The sockets that share the ESP port: the kernel's, and one for each thread of the engine. */
struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, 9);
	__type(key, __u32);
	__type(value, __u64);
} esp_sockets SEC(".maps");

/* For a TUN device with several queues (TUNSETSTEERINGEBPF): the kernel takes the answer modulo the number of queues. From the
 * last byte of each address, which are the same in both families' addresses of a pod. */
SEC("socket")
int steer_tun(struct __sk_buff *skb)
{
	__u8 first, local, remote;
	__u32 size, source;

	if (bpf_skb_load_bytes(skb, 0, &first, sizeof(first)) < 0)
		return 0;
	size = first >> 4 == 4 ? 4 : 16;
	source = first >> 4 == 4 ? IP4_SOURCE : IP6_SOURCE;
	if (bpf_skb_load_bytes(skb, source + size - 1, &local, sizeof(local)) < 0 ||
	    bpf_skb_load_bytes(skb, source + 2 * size - 1, &remote, sizeof(remote)) < 0)
		return 0;
	return (((__u32)local << 8 | remote) * 0x9e3779b1u) >> 24;
}

/* For the sockets of the ESP port (SO_ATTACH_REUSEPORT_EBPF): by the SPI. Its two highest bits say how many of the lowest are
 * the thread, the next whether it is the kernel's. Of messages that the kernel joined the first packet speaks for all. What is
 * for nobody comes to the engine's first thread, which counts it. */
SEC("sk_reuseport")
int steer_esp(struct sk_reuseport_md *packet)
{
	__u32 place = KERNEL_ESP + 1, spi;
	__be32 word;

	if (bpf_skb_load_bytes(packet, UDP_HEADER, &word, sizeof(word)) == 0) {
		spi = bpf_ntohl(word);
		if (spi >> 30 == 0 && spi & SPI_KERNEL)
			place = KERNEL_ESP;
		else
			place += spi & ((1u << (spi >> 30)) - 1);
	}
	if (bpf_sk_select_reuseport(packet, &esp_sockets, &place, 0) < 0) {
		place = KERNEL_ESP + 1;
		bpf_sk_select_reuseport(packet, &esp_sockets, &place, 0);
	}
	return SK_PASS;
}
