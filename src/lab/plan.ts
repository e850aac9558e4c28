import { createHash } from 'node:crypto';
import { type IpAddress, parseIp } from '../model/address.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import { LabError } from './error.ts';

/** A network namespace on the underlay, with its device `eth0`. */
export interface HostPlan {
  readonly name: string;
  /** Path of the network namespace; its last part is a name that `ip netns exec` takes. */
  readonly netns: string;
  /** Of `eth0`: IPv4, then IPv6. */
  readonly addresses: readonly [IpAddress, IpAddress];
}

/** Everything that a lab has a name or an address for before anything of it exists. Pure data. */
export interface LabPlan {
  readonly name: string;
  /** Logs, sockets, state: /run/myelin/lab/<name>. */
  readonly directory: string;
  /** Below the mount of cgroup v2. */
  readonly cgroup: string;
  /** Where the nodes' datapaths are pinned. */
  readonly bpf: string;
  readonly mtu: number;
  readonly underlay: readonly [Prefix, Prefix];
  /** The bridge; it has no address, so it is nobody on the underlay. */
  readonly fabric: { readonly netns: string; readonly bridge: string };
  /** API server, controller and the lab's own daemon. */
  readonly control: HostPlan;
  /** Everything that is neither pod nor node: the nodes' default route leads here. */
  readonly world: HostPlan & { readonly outside: readonly [IpAddress, IpAddress] };
  readonly nodes: readonly HostPlan[];
  readonly trustDomain: string;
  readonly podCidrs: readonly Prefix[];
  readonly serviceCidrs: readonly Prefix[];
  readonly dnsAddress: IpAddress;
}

export interface PlanOptions {
  readonly name?: string;
  /** 1 to 100; default 3. */
  readonly nodes?: number;
  /** Of the underlay; default 1500. */
  readonly mtu?: number;
  /** Mount of cgroup v2. */
  readonly cgroupRoot: string;
}

export const labsDirectory = '/run/myelin/lab';
export const namespaceDirectory = '/run/netns';
export const defaultLab = 'lab';
export const ports = { api: 6443, controller: 7443 } as const;

/** Addresses of TEST-NET-3 (RFC 5737) and of the documentation prefix (RFC 3849): the world as pods see it. */
const outside = [parseIp('203.0.113.10'), parseIp('2001:db8::10')] as const;
const leastMtu = 1280;

/**
 * Lays out a lab. The same options always give the same plan, so that a lab can be found again by its name alone.
 * @throws {LabError} `BadName`
 */
export function planLab({ name = defaultLab, nodes = 3, mtu = 1500, cgroupRoot }: PlanOptions): LabPlan {
  checkName(name);
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > 100)
    throw new LabError('BadName', `a lab has 1 to 100 nodes, not ${nodes}`);
  if (!Number.isInteger(mtu) || mtu < leastMtu || mtu > 9000)
    throw new LabError('BadName', `the underlay's MTU is ${leastMtu} (the least that IPv6 allows) to 9000, not ${mtu}`);
  // Labs do not see each other; a number of its own makes a lab's captures and logs recognisable all the same.
  const subnet = name === defaultLab ? 0 : 1 + ((createHash('sha256').update(name).digest()[0] ?? 0) % 255);
  const host = (label: string, number: number): HostPlan => ({
    name: label,
    netns: namespacePath(name, label),
    addresses: [parseIp(`172.30.${subnet}.${number}`), parseIp(`fd00:172:30:${subnet}::${number}`)],
  });
  return {
    name,
    directory: labDirectory(name),
    cgroup: `${cgroupRoot}/myelin-lab-${name}`,
    bpf: `/sys/fs/bpf/myelin-lab-${name}`,
    mtu,
    underlay: [parsePrefix(`172.30.${subnet}.0/24`), parsePrefix(`fd00:172:30:${subnet}::/64`)],
    fabric: { netns: namespacePath(name, 'fabric'), bridge: 'br0' },
    control: host('control', 1),
    world: { ...host('world', 254), outside },
    nodes: Array.from({ length: nodes }, (_, i) => host(`node-${i + 1}`, 11 + i)),
    trustDomain: 'cluster.local',
    podCidrs: [parsePrefix('10.244.0.0/16'), parsePrefix('fd00:10:244::/56')],
    serviceCidrs: [parsePrefix('10.96.0.0/16'), parsePrefix('fd00:10:96::/112')],
    dnsAddress: parseIp('10.96.0.10'),
  };
}

export function labDirectory(name: string): string {
  return `${labsDirectory}/${name}`;
}

/**
 * Where a lab's namespace is mounted: `myelin.<lab>.<label>`. A dot separates, for neither part may have one:
 * no lab's names begin with those of another.
 */
export function namespacePath(lab: string, label: string): string {
  return `${namespaceDirectory}/${namespacePrefix(lab)}${label}`;
}

export function namespacePrefix(lab: string): string {
  return `myelin.${lab}.`;
}

/** @throws {LabError} `BadName` */
export function checkName(name: string): void {
  // 20 characters keep the longest socket path below the 108 bytes that the kernel takes.
  if (!/^[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?$/.test(name))
    throw new LabError('BadName', `${JSON.stringify(name)} is not a lab's name: lower case, digits and -, at most 20`);
}
