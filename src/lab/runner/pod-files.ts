import type { PodSpec } from '../../api/kinds.ts';
import type { IpAddress } from '../../model/address.ts';

export interface PodNetworkFacts {
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly IpAddress[];
  readonly dnsAddress: IpAddress;
  readonly clusterDomain: string;
  /** The machine's own /etc/resolv.conf, for pods that ask whom it asks. */
  readonly machineResolvConf: string;
}

/**
 * The files that a kubelet writes for a pod: who it is, and whom it asks for names.
 * @returns Path in the container → text.
 */
export function podFiles(spec: PodSpec, facts: PodNetworkFacts): Record<string, string> {
  return {
    '/etc/hostname': `${facts.hostname}\n`,
    '/etc/hosts': hosts(spec, facts),
    '/etc/resolv.conf': resolvConf(spec, facts),
    // The machine may ask resolvers of its own first; a pod asks the cluster's and nobody else.
    '/etc/nsswitch.conf': 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n',
  };
}

function hosts({ hostAliases = [] }: PodSpec, { hostname, addresses }: PodNetworkFacts): string {
  const lines = ['127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost ip6-loopback'];
  for (const address of addresses) lines.push(`${address}\t${hostname}`);
  for (const { ip, hostnames = [] } of hostAliases) lines.push(`${ip}\t${hostnames.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

/** Kubernetes' own search list and ndots:5; `Default`, and host network unless told otherwise, mean the machine's own. */
function resolvConf(spec: PodSpec, facts: PodNetworkFacts): string {
  const { namespace, dnsAddress, clusterDomain, machineResolvConf } = facts;
  const { dnsPolicy = 'ClusterFirst', dnsConfig = {}, hostNetwork } = spec;
  const cluster = dnsPolicy === 'ClusterFirst' ? hostNetwork !== true : dnsPolicy === 'ClusterFirstWithHostNet';
  if (!cluster && dnsPolicy !== 'None') return machineResolvConf;
  const servers = [...(cluster ? [dnsAddress] : []), ...(dnsConfig.nameservers ?? [])];
  const searches = [
    ...(cluster ? [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain] : []),
    ...(dnsConfig.searches ?? []),
  ];
  const options = new Map(cluster ? [['ndots', '5']] : []);
  // A lab's name server is milliseconds away: whoever has no answer after a second was denied it.
  if (cluster) options.set('timeout', '1').set('attempts', '2');
  for (const { name, value = '' } of dnsConfig.options ?? []) if (name !== undefined) options.set(name, value);
  const words = [...options].map(([name, value]) => (value === '' ? name : `${name}:${value}`));
  return [
    ...servers.map((server) => `nameserver ${server}`),
    ...(searches.length > 0 ? [`search ${searches.join(' ')}`] : []),
    ...(words.length > 0 ? [`options ${words.join(' ')}`] : []),
    '',
  ].join('\n');
}
