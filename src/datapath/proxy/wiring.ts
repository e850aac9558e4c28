import { parseMac } from '../../model/address.ts';

/**
 * The proxy's network namespace, as what is run to make it. Everything that comes there is local, whatever its address
 * (so the proxy accepts every connection as who it was for), and everything that leaves goes back by the link (so the
 * proxy connects as whoever asked). It needs no address, and its process no capability.
 */

/** The node's side of the link. */
export const proxyDevice = 'myproxy0';
/** The proxy's side. */
export const innerDevice = 'eth0';
/** `PROXY_MAC` of bpf/lib/proxy.h: alike on all nodes, since nobody else is on the link. */
export const proxyMac = parseMac('02:4d:59:4c:50:02');
const nodeMac = parseMac('02:4d:59:4c:50:01');

/** `ip` commands for the node's namespace; the program is attached before `upLines` are run. */
export function linkLines(netns: string, mtu: number): string[] {
  return [
    `link add name ${proxyDevice} mtu ${mtu} address ${nodeMac} type veth ` +
      `peer name ${innerDevice} mtu ${mtu} address ${proxyMac} netns ${netns}`,
    `link set dev ${proxyDevice} addrgenmode none`,
  ];
}

/** The same, for a link that may be there. */
export function upLines(mtu: number): string[] {
  // Not for anybody to reach: a device without an address passes no reverse-path filter (fib_validate_source: no_addr).
  return [`link set dev ${proxyDevice} mtu ${mtu} up`, `addr replace 169.254.1.1/32 dev ${proxyDevice} scope link`];
}

/** By path under /proc/sys of the node's namespace. */
export const nodeSettings: Readonly<Record<string, string>> = {
  // Loosely: the addresses that the proxy speaks for are routed to the pods. It outweighs what stands for all devices.
  [`net/ipv4/conf/${proxyDevice}/rp_filter`]: '2',
  [`net/ipv6/conf/${proxyDevice}/disable_ipv6`]: '0',
  [`net/ipv6/conf/${proxyDevice}/accept_ra`]: '0',
};

/** By path under /proc/sys of the proxy's namespace. */
export const innerSettings: Readonly<Record<string, string>> = {
  // What comes in has addresses that are local, as all are.
  'net/ipv4/conf/all/rp_filter': '0',
  [`net/ipv4/conf/${innerDevice}/rp_filter`]: '0',
  [`net/ipv4/conf/${innerDevice}/accept_local`]: '1',
  'net/ipv4/ip_nonlocal_bind': '1',
  // Clients' ports may be any.
  'net/ipv4/ip_unprivileged_port_start': '0',
  // A client may use a port again before the proxy's own socket has been forgotten.
  'net/ipv4/tcp_tw_reuse': '1',
  // A connection that a cookie made has no SYN to show, and so nobody who it is from.
  'net/ipv4/tcp_syncookies': '0',
  'net/ipv4/tcp_max_syn_backlog': '4096',
  'net/core/somaxconn': '4096',
  [`net/ipv6/conf/${innerDevice}/addr_gen_mode`]: '1',
  [`net/ipv6/conf/${innerDevice}/accept_ra`]: '0',
  [`net/ipv6/conf/${innerDevice}/accept_dad`]: '0',
  [`net/ipv6/conf/${innerDevice}/autoconf`]: '0',
  [`net/ipv6/conf/${innerDevice}/disable_ipv6`]: '0',
  'net/ipv6/ip_nonlocal_bind': '1',
};

/**
 * `ip` commands for the proxy's namespace and one family, once, when the link is up. The way out comes before everything is
 * local: a gateway that is, is none.
 */
export function innerLines(family: 4 | 6): string[] {
  const [gateway, all] = family === 4 ? ['169.254.1.1', '0.0.0.0/0'] : ['fe80::1', '::/0'];
  return [
    `neigh replace ${gateway} lladdr ${nodeMac} dev ${innerDevice} nud permanent`,
    `route add default via ${gateway} dev ${innerDevice} onlink`,
    `route add local ${all} dev lo table local`,
    `rule add iif ${innerDevice} lookup local pref 10`,
    'rule del lookup local pref 0',
  ];
}

/** What the proxy's side of the link is called once everything of its namespace is in place. */
export const wired = 'myelin-proxy-1';
