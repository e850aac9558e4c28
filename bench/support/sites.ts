import { ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace } from '../../src/kernel/netns.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';

/** One side of a comparison: a node's network namespace and where the other side finds it. */
export interface Site {
  /** Path of the namespace. */
  readonly netns: string;
  readonly underlay: IpAddress;
  /** Its device on the underlay. */
  readonly device: string;
}

/** A pod without Myelin: a namespace behind a node, reached by plain routing. */
export interface PlainPod {
  readonly netns: string;
  readonly address: IpAddress;
}

export interface PlainPair {
  readonly client: PlainPod;
  readonly server: PlainPod;
  /** Sends the traffic between the two over these devices from now on, or over the underlay in clear. */
  routeBy(devices?: readonly [string, string]): Promise<void>;
  close(): Promise<void>;
}

/** Two namespaces joined by a veth, with IPv4 and forwarding: the smallest underlay there is. */
export async function openSites(name: string, mtu: number): Promise<{ sites: [Site, Site]; close(): Promise<void> }> {
  const sites = [1, 2].map(
    (n): Site => ({ netns: `/run/netns/${name}-n${n}`, underlay: parseIp(`172.31.255.${n}`), device: 'eth0' }),
  );
  const [a, b] = sites;
  if (a === undefined || b === undefined) throw new Error('two sites are made above');
  for (const site of sites) await createNamespace(site.netns);
  await ipBatch([`link add eth0 mtu ${mtu} netns ${name}-n1 type veth peer name eth0 mtu ${mtu} netns ${name}-n2`]);
  for (const site of sites) {
    const batch = [`addr add ${site.underlay}/24 dev eth0`, 'link set eth0 up'];
    await ipBatch(batch, { netns: site.netns });
    await allowForwarding(site.netns);
  }
  return {
    sites: [a, b],
    async close() {
      for (const site of sites) deleteNamespace(site.netns);
    },
  };
}

/**
 * Puts one plain pod behind each site (behind one and the same site for traffic within a node).
 * @param name Unique on this machine; at most 10 characters, because it begins device names.
 * @param options.mtu Of the pods' devices: what the tunnel that is measured leaves.
 */
export async function openPlainPair(
  name: string,
  sites: readonly [Site, Site],
  options: { mtu: number },
): Promise<PlainPair> {
  const pods = sites.map((site, i): PlainPod & { site: Site; device: string; net: string } => ({
    site,
    netns: `/run/netns/${name}-p${i + 1}`,
    address: parseIp(`10.250.${i + 1}.2`),
    device: `${name}h${i + 1}`,
    net: `10.250.${i + 1}.0/24`,
  }));
  const [client, server] = pods;
  if (client === undefined || server === undefined) throw new Error('two pods are made above');
  for (const [i, pod] of pods.entries()) {
    await createNamespace(pod.netns);
    const host = `10.250.${i + 1}.1`;
    await ipBatch(
      [
        `link add ${pod.device} mtu ${options.mtu} type veth peer name eth0 mtu ${options.mtu} netns ${name}-p${i + 1}`,
        `addr add ${host}/24 dev ${pod.device}`,
        `link set ${pod.device} up`,
      ],
      { netns: pod.site.netns },
    );
    await ipBatch([`addr add ${pod.address}/24 dev eth0`, 'link set eth0 up', `route add default via ${host}`], {
      netns: pod.netns,
    });
    await allowForwarding(pod.site.netns);
  }
  return {
    client,
    server,
    async routeBy(devices) {
      if (client.site.netns === server.site.netns) return;
      const via = (from: number, to: Site) => (devices === undefined ? `via ${to.underlay}` : `dev ${devices[from]}`);
      await ipBatch([`route replace ${server.net} ${via(0, server.site)}`], { netns: client.site.netns });
      await ipBatch([`route replace ${client.net} ${via(1, client.site)}`], { netns: server.site.netns });
    },
    async close() {
      for (const pod of pods) {
        await ipBatch([`link del ${pod.device}`], { netns: pod.site.netns });
        deleteNamespace(pod.netns);
      }
    },
  };
}

async function allowForwarding(netns: string): Promise<void> {
  const { run } = await import('../../src/kernel/command.ts');
  await run('sysctl', ['-qw', 'net.ipv4.ip_forward=1'], { netns });
}
