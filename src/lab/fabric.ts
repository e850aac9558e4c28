import { run } from '../kernel/command.ts';
import { ipBatch } from '../kernel/ip.ts';
import { createNamespace, deleteNamespace, listNamespaces } from '../kernel/netns.ts';
import { prefixParts } from '../model/prefix.ts';
import { type HostPlan, type LabPlan, namespaceDirectory, namespacePrefix } from './plan.ts';

/** Not for tests only: addresses must be usable at once, and the fabric is no place for loops. */
const quickIpv6 = 'for f in all default; do echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad; done';

/**
 * Makes the lab's namespaces and joins them: a bridge in a namespace of its own, and for each host a veth pair between
 * `eth0` and a port of the bridge that has the host's name. Nothing of it is visible in the namespace of the caller.
 * @throws {KernelError} `Command`, `Errno`, `Missing`
 */
export async function createFabric(plan: LabPlan): Promise<void> {
  const hosts = [plan.control, plan.world, ...plan.nodes];
  const { netns, bridge } = plan.fabric;
  await Promise.all([netns, ...hosts.map((host) => host.netns)].map(createNamespace));
  await run('sh', ['-c', quickIpv6], { netns });
  await ipBatch(
    [
      `link add ${bridge} mtu ${plan.mtu} up type bridge forward_delay 0 stp_state 0 mcast_snooping 0`,
      ...hosts.flatMap((host) => [
        `link add ${host.name} mtu ${plan.mtu} type veth peer name eth0 netns ${host.netns} mtu ${plan.mtu}`,
        `link set ${host.name} master ${bridge} up`,
      ]),
    ],
    { netns },
  );
  await Promise.all(hosts.map((host) => configureHost(plan, host)));
}

/** Gives a host its addresses and the way to everything else: the world's namespace. */
async function configureHost(plan: LabPlan, host: HostPlan): Promise<void> {
  const { netns } = host;
  await run('sh', ['-c', quickIpv6], { netns });
  const addresses = host.addresses.map((address, i) => {
    const { length } = prefixParts(plan.underlay[i === 0 ? 0 : 1]);
    return `address add ${address}/${length} dev eth0${i === 0 ? '' : ' nodad'}`;
  });
  const [gateway4, gateway6] = plan.world.addresses;
  const ways =
    host === plan.world
      ? // The world speaks under its own addresses, also where it answers a datagram.
        plan.world.outside.flatMap((address, i) => [
          `address add ${address} dev eth0${i === 0 ? '' : ' nodad'}`,
          `route replace ${plan.underlay[i === 0 ? 0 : 1]} dev eth0 src ${address}${i === 0 ? '' : ' metric 256'}`,
        ])
      : [`route add default via ${gateway4}`, `route add ::/0 via ${gateway6}`];
  await ipBatch(['link set eth0 up', ...addresses, ...ways], { netns });
}

/** Removes every namespace of a lab, also those of pods. Those who are not there are no error. @returns How many there were. */
export function removeNamespaces(lab: string): number {
  const prefix = `${namespaceDirectory}/${namespacePrefix(lab)}`;
  const own = listNamespaces(namespaceDirectory).filter((path) => path.startsWith(prefix));
  for (const path of own) deleteNamespace(path);
  return own.length;
}
