/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose requests the proxy reads, and what is kept of who makes them. Policy sends connections to the proxy by itself
 * (VERDICT_PROXY); those that the kernel could read go there where something is known of the port.
 */
#pragma once

#include "maps.h"

/* Whether the proxy reads what policy wants to have read, to an endpoint's port, and the kernel could. */
SUBPROGRAM int proxied_by_port(const struct endpoint *endpoint, __u32 port)
{
	struct config *settings = config_get();
	struct proxy_port_key key = {};
	__u32 *mode;

	if (!endpoint || !settings)
		return 0;
	key.endpoint = endpoint->id;
	key.port = port;
	mode = bpf_map_lookup_elem(&proxy_ports, &key);
	/* Without a proxy the port is read by the kernel as before. */
	return mode && *mode == PROXY_ALWAYS && settings->proxy_ifindex != 0;
}

/* For so long a client is the proxy's that was noted once. */
#define PROXIED_CLIENT_NS (3600 * 1000000000LL)

static __always_inline void proxied_client_key(struct proxy_client_key *key, const struct ct_key *connection)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->endpoint = connection->endpoint;
	key->remote = connection->remote;
	key->port = bpf_ntohs(connection->local_port);
}

/*
 * Whether the proxy reads the connection that is opened to an endpoint, because of who opens it (proxied_learn_client).
 * Where the port is not to be the proxy's, nor are its clients.
 */
SUBPROGRAM int proxied_by_client(const struct ct_key *connection)
{
	struct config *settings = config_get();
	struct proxy_port_key port = {};
	struct proxy_client_key key;
	__u64 *noted;
	__u32 *mode;

	if (!connection || !settings || settings->proxy_ifindex == 0)
		return 0;
	proxied_client_key(&key, connection);
	noted = bpf_map_lookup_elem(&proxy_clients, &key);
	if (!noted || (__s64)(bpf_ktime_get_coarse_ns() - *noted) > PROXIED_CLIENT_NS)
		return 0;
	port.endpoint = key.endpoint;
	port.port = key.port;
	mode = bpf_map_lookup_elem(&proxy_ports, &port);
	return !mode || *mode != PROXY_NEVER;
}

/*
 * Notes that a connection had to end because a request on it should have been answered, and could not be by the kernel
 * (docs/HTTP.md, In order): whoever tries again is read by the proxy, which can wait.
 */
SUBPROGRAM int proxied_learn_client(const struct ct_key *connection)
{
	struct config *settings = config_get();
	__u64 now = bpf_ktime_get_coarse_ns();
	struct proxy_client_key key;

	if (!connection || !settings || (settings->proxy_ifindex == 0 && !(settings->flags & CONFIG_PROXY_LEARN)))
		return -1;
	proxied_client_key(&key, connection);
	return bpf_map_update_elem(&proxy_clients, &key, &now, BPF_ANY);
}

/* @returns What class an identity number stands for, the same for every number of it; 0: not known. */
static __always_inline __u32 proxied_class(__u32 identity)
{
	__u32 *class;

	if (identity <= IDENTITY_REMOTE_NODE)
		return identity;
	class = bpf_map_lookup_elem(&identity_classes, &identity);
	return class ? *class : 0;
}

#define PROXIED_PREFACE "PRI * HTTP/2.0"

/*
 * Notes that a port is not one of HTTP/1.1, by what a connection to it began with (RFC 9113 section 3.4), so that the next
 * one goes to the proxy. `head` has as many bytes as are compared. What is said of the port already stays.
 */
static __always_inline void proxied_learn(const struct ct_key *connection, const __u8 *head)
{
	struct config *settings = config_get();
	struct proxy_port_key key = {};
	__u32 mode = PROXY_ALWAYS;

	if (!settings || (settings->proxy_ifindex == 0 && !(settings->flags & CONFIG_PROXY_LEARN)))
		return;
	for (__u32 i = 0; i < sizeof(PROXIED_PREFACE) - 1; i++)
		if (head[i] != PROXIED_PREFACE[i])
			return;
	key.endpoint = connection->endpoint;
	key.port = bpf_ntohs(connection->local_port);
	bpf_map_update_elem(&proxy_ports, &key, &mode, BPF_NOEXIST);
}
