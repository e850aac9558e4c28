/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A socket's connection as a key, out of what the kernel says of sockets: the same words in sk_skb and sockops programs. */
#pragma once

#include "http_layout.h"

#define HTTP_AF_INET6 10

/*
 * remote_port is in network order in its upper half on little-endian machines. A request on its way to be a socket has
 * its listener's family, and IPv4 addresses in their own place.
 *
 * The barriers keep the compiler from sharing one load between the branches: the verifier allows loads at fixed places
 * of a context only.
 */
#define HTTP_KEY(context, key)                                                                         \
	do {                                                                                           \
		if ((context)->family == HTTP_AF_INET6 &&                                              \
		    ((context)->remote_ip6[0] || (context)->remote_ip6[2] || (context)->remote_ip6[3])) { \
			(key)->local.words[0] = (context)->local_ip6[0];                               \
			(key)->local.words[1] = (context)->local_ip6[1];                               \
			(key)->local.words[2] = (context)->local_ip6[2];                               \
			(key)->local.words[3] = (context)->local_ip6[3];                               \
			(key)->remote.words[0] = (context)->remote_ip6[0];                             \
			(key)->remote.words[1] = (context)->remote_ip6[1];                             \
			(key)->remote.words[2] = (context)->remote_ip6[2];                             \
			(key)->remote.words[3] = (context)->remote_ip6[3];                             \
			asm volatile("" ::: "memory");                                                 \
		} else {                                                                               \
			addr_set_ipv4(&(key)->local, (context)->local_ip4);                            \
			addr_set_ipv4(&(key)->remote, (context)->remote_ip4);                          \
			asm volatile("" ::: "memory");                                                 \
		}                                                                                      \
		(key)->local_port = bpf_htons((context)->local_port);                                  \
		(key)->remote_port = bpf_htons(bpf_ntohl((context)->remote_port));                     \
	} while (0)
