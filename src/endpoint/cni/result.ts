import { familyOf } from '../../model/address.ts';
import { parsePrefix, prefixParts } from '../../model/prefix.ts';
import { type Endpoint, gateway4, gateway6 } from '../endpoint.ts';
import type { NetworkConfig } from './request.ts';
import { atLeast } from './version.ts';

type Json = Readonly<Record<string, unknown>>;

export interface PrevInterface {
  readonly name: string;
  readonly mac: string;
  readonly sandbox: string;
}

/** What CHECK needs of a result that ADD gave earlier, in whichever version. */
export interface PrevResult {
  readonly interfaces: readonly PrevInterface[];
  /** As written: an address with its prefix length. */
  readonly ips: readonly string[];
  readonly routes: readonly { readonly dst: string; readonly gw: string }[];
}

/** The scope that the kernel calls "link" (RT_SCOPE_LINK). */
const linkScope = 253;

/**
 * The "success" result of ADD in the form of the configuration's version: 0.3.x and 0.4.0 say an address's family, 1.1.0
 * says MTU and scope. What earlier plugins of a chain made stays in front.
 */
export function addResult(endpoint: Endpoint, config: NetworkConfig): Json {
  const { cniVersion } = config;
  const prev = config.prevResult ?? {};
  const earlier = listOf(prev, 'interfaces');
  const detailed = atLeast(cniVersion, '1.1.0');
  const mtu = detailed ? { mtu: endpoint.mtu } : {};
  const interfaces = [
    ...earlier,
    { name: endpoint.hostInterface, mac: endpoint.hostMac, ...mtu },
    { name: endpoint.ifName, mac: endpoint.mac, ...mtu, sandbox: endpoint.netns },
  ];
  const ips = endpoint.addresses.map((ip) => {
    const [length, gateway, version] = familyOf(ip) === 4 ? [32, gateway4, '4'] : [128, gateway6, '6'];
    return {
      ...(!atLeast(cniVersion, '1.0.0') && { version }),
      interface: earlier.length + 1,
      address: `${ip}/${length}`,
      gateway,
    };
  });
  const routes = endpoint.addresses.flatMap((ip) =>
    familyOf(ip) === 4
      ? [
          { dst: `${gateway4}/32`, ...(detailed && { scope: linkScope }) },
          { dst: '0.0.0.0/0', gw: gateway4 },
        ]
      : [{ dst: '::/0', gw: gateway6 }],
  );
  const dns = config.dns ?? prev.dns;
  return {
    cniVersion,
    interfaces,
    ips: [...listOf(prev, 'ips'), ...ips],
    routes: [...listOf(prev, 'routes'), ...routes],
    ...(dns !== undefined && { dns }),
  };
}

/** @returns The parts of a result that can be compared; what is not as it should be counts as absent. */
export function readPrevResult(result: Json): PrevResult {
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return {
    interfaces: listOf(result, 'interfaces').map((item) => ({
      name: text(item.name),
      mac: text(item.mac).toLowerCase(),
      sandbox: text(item.sandbox),
    })),
    ips: listOf(result, 'ips').map((item) => canonical(text(item.address))),
    routes: listOf(result, 'routes').map((item) => ({ dst: canonical(text(item.dst)), gw: text(item.gw) })),
  };
}

/** A runtime may write an address in another way than we did. */
function canonical(cidr: string): string {
  try {
    const { address, length } = prefixParts(parsePrefix(cidr));
    return `${address}/${length}`;
  } catch {
    return cidr;
  }
}

function listOf(value: Json, key: string): Json[] {
  const list = value[key];
  if (!Array.isArray(list)) return [];
  return list.filter((item): item is Json => typeof item === 'object' && item !== null);
}
