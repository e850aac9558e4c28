import { familyOf, type IpAddress } from '../model/address.ts';
import { type Endpoint, gateway4, gateway6 } from './endpoint.ts';

/**
 * The `ip` commands that make a pod's network, as text: what is run, in three batches. Between the first and the others
 * the datapath is attached, so no packet passes before it.
 */

const hasIpv6 = (endpoint: Endpoint) => endpoint.addresses.some((ip) => familyOf(ip) === 6);
const hostLength = (ip: IpAddress) => (familyOf(ip) === 4 ? 32 : 128);

/** In the node's namespace. Both ends are down, and the pod's end is born in the pod's namespace. */
export function pairLines(endpoint: Endpoint, netns: string): string[] {
  const { hostInterface, hostMac, ifName, mac, mtu } = endpoint;
  return [
    `link add name ${hostInterface} mtu ${mtu} address ${hostMac} type veth ` +
      `peer name ${ifName} mtu ${mtu} address ${mac} netns ${netns}`,
    // The host's end has one link-local address, fe80::1, and makes up no other.
    `link set dev ${hostInterface} addrgenmode none`,
  ];
}

/** In the pod's namespace. */
export function podLines({ addresses, hostMac, ifName }: Endpoint): string[] {
  const lines = ['link set dev lo up', `link set dev ${ifName} up`];
  for (const ip of addresses) {
    const [gateway, nodad] = familyOf(ip) === 4 ? [gateway4, ''] : [gateway6, ' nodad'];
    lines.push(
      `addr add ${ip}/${hostLength(ip)} dev ${ifName}${nodad}`,
      // Permanent: a pod never asks who its gateway is, so nobody can answer falsely.
      `neigh replace ${gateway} lladdr ${hostMac} dev ${ifName} nud permanent`,
    );
    if (gateway === gateway4) lines.push(`route add ${gateway4}/32 dev ${ifName} scope link`);
    lines.push(`route add default via ${gateway} dev ${ifName}`);
  }
  return lines;
}

/**
 * In the node's namespace; may be run again at any time, as an agent does that starts.
 * @param nodeAddresses The node's own, one of a family at most: what its packets to the pod come from. Without one they
 * would come from 169.254.1.1, the only address on the device.
 */
export function hostLines(endpoint: Endpoint, nodeAddresses: readonly IpAddress[]): string[] {
  const { addresses, hostInterface: device, mac } = endpoint;
  const lines = [`link set dev ${device} up`, `addr replace ${gateway4}/32 dev ${device} scope link`];
  if (hasIpv6(endpoint)) lines.push(`addr replace ${gateway6}/64 dev ${device} nodad`);
  for (const ip of addresses) {
    const source = nodeAddresses.find((own) => familyOf(own) === familyOf(ip));
    lines.push(
      `route replace ${ip}/${hostLength(ip)} dev ${device}${source === undefined ? '' : ` src ${source}`}`,
      `neigh replace ${ip} lladdr ${mac} dev ${device} nud permanent`,
    );
  }
  return lines;
}

/**
 * A shell script for the pod's namespace that sets the interface's IPv6 up and then becomes `ip`, which reads
 * {@link podLines}. One process, because a namespace can only be entered by starting one. `ifName` is `$1`.
 */
export function podScript(endpoint: Endpoint): string {
  const settings = hasIpv6(endpoint)
    ? // No router is listened to or asked for, and no address is probed for duplicates: the node knows there are none.
      'disable_ipv6=0 accept_ra=0 accept_dad=0 autoconf=0'
    : 'disable_ipv6=1';
  const write = `for s in ${settings}; do echo "\${s#*=}" >"$d/\${s%=*}" || exit; done`;
  const required = hasIpv6(endpoint) ? `else echo "no IPv6 in this kernel" >&2; exit 1; ` : '';
  return `d=/proc/sys/net/ipv6/conf/$1; if [ -d "$d" ]; then ${write}; ${required}fi; exec ip -batch -`;
}
