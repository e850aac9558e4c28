import { type Prefix, prefixParts } from '../model/prefix.ts';

/** The node's own packets carry this proof to a pod's interface: `M` and the identity number of the host (bpf/lib/mark.h). */
const hostMark = 0x4d000001;
/** In the high byte of a pod's answer to the world that reached it at its own address (bpf/lib/mark.h, MARK_WORLD). */
const worldMark = { mask: 0xff000000, value: 0x57000000 };

/** Kernel settings of a node, by path under /proc/sys. */
export const nodeSysctls: Readonly<Record<string, string>> = {
  'net/ipv4/ip_forward': '1',
  'net/ipv6/conf/all/forwarding': '1',
  // A pod's address is routed by its own /32: strict reverse-path filtering agrees, and stops what the datapath might not see.
  'net/ipv4/conf/default/rp_filter': '1',
  'net/ipv4/conf/all/send_redirects': '0',
  'net/ipv4/conf/default/send_redirects': '0',
};

/**
 * The node's nftables table, whole: it is replaced in one transaction.
 *
 * Two things stay with the kernel's own stack. Pods' traffic to the world leaves under the node's address, but for answers
 * to who reached a pod at its own: the kernel has not seen the questions, and would take answers for connections. And what the
 * node itself sends to its pods is marked as such on output, the one hook that a forwarded packet never sees: without
 * the mark a pod's interface takes it for an intruder. And the node keeps to itself which multicast groups it listens to:
 * nobody on a pod's link routes multicast, and the datapath would count the reports as intruders.
 *
 * The kernel's tunnels pass the postrouting hook with the pods' packets still in the clear (xfrm4_output in Linux), and the
 * route that they have there knows what fits after sealing: a SYN from here to another node's pod announces no more. The
 * engine clamps for itself, and its packets do not come this way.
 * @param options.nodePods This node's pod prefixes.
 * @param options.clusterPods Every pod prefix of the cluster: traffic to those is never masqueraded.
 */
export function nftScript(options: {
  uplink: string;
  tunnel: string;
  nodePods: readonly Prefix[];
  clusterPods: readonly Prefix[];
}): string {
  const family = (prefix: Prefix) => (prefixParts(prefix).family === 4 ? 'ip' : 'ip6');
  const mark = options.nodePods.map(
    (prefix) =>
      `    oifname != { "${options.uplink}", "${options.tunnel}", "lo" } ${family(prefix)} daddr ${prefix} meta mark set 0x${hostMark.toString(16)}`,
  );
  const masquerade = options.nodePods.map((prefix) => {
    const others = options.clusterPods.filter((cluster) => family(cluster) === family(prefix));
    const asked = `meta mark and 0x${worldMark.mask.toString(16)} != 0x${worldMark.value.toString(16)}`;
    return `    oifname "${options.uplink}" ${family(prefix)} saddr ${prefix} ${family(prefix)} daddr != { ${others.join(', ')} } ${asked} masquerade`;
  });
  const clamp = options.nodePods.map((prefix) => {
    const others = options.clusterPods.filter((cluster) => family(cluster) === family(prefix));
    return `    ${family(prefix)} saddr ${prefix} ${family(prefix)} daddr { ${others.join(', ')} } tcp flags & syn == syn tcp option maxseg size set rt mtu`;
  });
  return `table inet myelin
delete table inet myelin
table inet myelin {
  chain output {
    type filter hook output priority mangle; policy accept;
    oifname "my*" icmpv6 type mld2-listener-report drop
${mark.join('\n')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
${masquerade.join('\n')}
  }
  chain clamp {
    type filter hook postrouting priority mangle; policy accept;
${clamp.join('\n')}
  }
}
`;
}
