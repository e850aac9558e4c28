import { z } from 'zod';
import { ip } from '../kernel/ip.ts';
import { familyOf } from '../model/address.ts';
import type { PrevResult } from './cni/result.ts';
import { type Endpoint, gateway4, gateway6 } from './endpoint.ts';

const link = z.object({
  ifindex: z.number(),
  link_index: z.number().optional(),
  mtu: z.number(),
  address: z.string(),
  flags: z.array(z.string()),
  addr_info: z.array(z.object({ local: z.string().optional(), prefixlen: z.number() })),
});
const route = z.object({ dst: z.string(), gateway: z.string().optional() });
const neighbour = z.object({ dst: z.string(), lladdr: z.string().optional(), state: z.array(z.string()) });

/** One end of a veth pair, as `ip -json` describes it. */
export interface Side {
  /** Absent where there is no such device. */
  readonly link?: z.infer<typeof link> | undefined;
  readonly routes: readonly z.infer<typeof route>[];
  readonly neighbours: readonly z.infer<typeof neighbour>[];
}

/** @param netns Another namespace than this process's. */
export async function readSide(device: string, netns?: string): Promise<Side> {
  const where = netns === undefined ? {} : { netns };
  const show = (...args: string[]) => ip([...args, 'dev', device], where).catch(() => []);
  const [links, routes4, routes6, neighbours] = await Promise.all([
    show('addr', 'show'),
    show('-4', 'route', 'show'),
    show('-6', 'route', 'show'),
    show('neigh', 'show', 'nud', 'permanent'),
  ]);
  return {
    link: z.array(link).safeParse(links).data?.[0],
    routes: [...z.array(route).parse(routes4), ...z.array(route).parse(routes6)],
    neighbours: z.array(neighbour).parse(neighbours),
  };
}

/**
 * What is not as ADD left it, in words; empty where all is well. Later plugins of a chain may have changed routes, so
 * only those of ours that `prev` still lists are looked for.
 * @param sandbox The namespace's path in this CHECK.
 */
export function differences(endpoint: Endpoint, prev: PrevResult, sandbox: string, host: Side, pod: Side): string[] {
  return [
    ...resultDifferences(endpoint, prev, sandbox),
    ...hostDifferences(endpoint, host),
    ...podDifferences(endpoint, prev, pod, host),
  ];
}

function resultDifferences(
  { addresses, hostInterface, ifName, mac }: Endpoint,
  prev: PrevResult,
  sandbox: string,
): string[] {
  const found: string[] = [];
  const inside = prev.interfaces.find((i) => i.name === ifName && i.sandbox === sandbox);
  if (inside === undefined) found.push(`prevResult has no interface ${ifName} in ${sandbox}`);
  else if (inside.mac !== '' && inside.mac !== mac)
    found.push(`prevResult gives ${ifName} the MAC ${inside.mac}, but only ${mac} may send`);
  if (!prev.interfaces.some((i) => i.name === hostInterface && i.sandbox === ''))
    found.push(`prevResult has no interface ${hostInterface} of the node`);
  for (const address of addresses)
    if (!prev.ips.includes(withLength(address))) found.push(`prevResult lacks the address ${address}`);
  return found;
}

function hostDifferences(endpoint: Endpoint, host: Side): string[] {
  const { addresses, hostIndex, hostInterface, hostMac, mac, mtu } = endpoint;
  if (host.link === undefined) return [`the node has no interface ${hostInterface}`];
  const found = linkDifferences(`${hostInterface} of the node`, host.link, hostMac, mtu);
  if (host.link.ifindex !== hostIndex) found.push(`${hostInterface} is not the interface that ADD made`);
  for (const address of addresses) {
    if (!host.routes.some((r) => r.dst === address))
      found.push(`the node has no route to ${address} by ${hostInterface}`);
    if (!host.neighbours.some((n) => n.dst === address && n.lladdr === mac))
      found.push(`the node has no permanent neighbour ${address} with ${mac}`);
  }
  return found;
}

function podDifferences(endpoint: Endpoint, prev: PrevResult, pod: Side, host: Side): string[] {
  const { addresses, hostMac, ifName, mac, mtu } = endpoint;
  if (pod.link === undefined) return [`the container has no interface ${ifName}`];
  const found = linkDifferences(`${ifName} of the container`, pod.link, mac, mtu);
  if (pod.link.link_index !== host.link?.ifindex)
    found.push(`${ifName} of the container is not the other end of the pair`);
  for (const address of addresses) {
    const has = pod.link.addr_info.some(
      (a) => a.local !== undefined && `${a.local}/${a.prefixlen}` === withLength(address),
    );
    if (!has) found.push(`the container lacks the address ${address}`);
    const gateway = familyOf(address) === 4 ? gateway4 : gateway6;
    if (!pod.neighbours.some((n) => n.dst === gateway && n.lladdr === hostMac))
      found.push(`the container has no permanent neighbour ${gateway} with ${hostMac}`);
    if (!prev.routes.some((r) => r.gw === gateway)) continue;
    if (!pod.routes.some((r) => r.dst === 'default' && r.gateway === gateway))
      found.push(`the container has no default route by ${gateway}`);
  }
  return found;
}

function linkDifferences(name: string, link: NonNullable<Side['link']>, mac: string, mtu: number): string[] {
  const found: string[] = [];
  if (!link.flags.includes('UP')) found.push(`${name} is down`);
  if (link.address !== mac) found.push(`${name} has the MAC ${link.address}, not ${mac}`);
  if (link.mtu !== mtu) found.push(`${name} has the MTU ${link.mtu}, not ${mtu}`);
  return found;
}

function withLength(address: Endpoint['addresses'][number]): string {
  return `${address}/${familyOf(address) === 4 ? 32 : 128}`;
}
