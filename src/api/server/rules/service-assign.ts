import { type Family, familyOf, tryParseIp } from '../../../model/address.ts';
import type { FieldIssue } from '../../issue.ts';
import { isList, objectOr } from '../../json.ts';
import { kinds, type Service } from '../../kinds.ts';
import { invalidValue } from '../../validate.ts';
import type { ServiceAddresses } from '../service-addresses.ts';
import { invalid } from '../status.ts';
import type { World } from './rules.ts';

export type ServiceSpec = NonNullable<Service['spec']>;
type FamilyName = NonNullable<ServiceSpec['ipFamilies']>[number];
const nameOf = (family: Family): FamilyName => (family === 4 ? 'IPv4' : 'IPv6');
const familyNamed = (name: FamilyName): Family => (name === 'IPv4' ? 4 : 6);

/** Fields that were allocated and that an update does not mention stay as they are. */
export function carryOverAddresses({ spec: next }: Service, { spec: old }: Service): void {
  if (next === undefined || old === undefined || next.type === 'ExternalName' || old.type === 'ExternalName') return;
  next.clusterIP ||= old.clusterIP;
  if ((next.clusterIPs ?? []).length === 0 && next.clusterIP === old.clusterIP) next.clusterIPs = old.clusterIPs;
  next.ipFamilyPolicy ??= old.ipFamilyPolicy;
  if ((next.ipFamilies ?? []).length === 0) next.ipFamilies = old.ipFamilies;
  const oldPorts = new Map((old.ports ?? []).map((port) => [`${port.port}/${port.protocol ?? 'TCP'}`, port.nodePort]));
  const usesNodePorts = next.type === 'NodePort' || next.type === 'LoadBalancer';
  for (const port of next.ports ?? [])
    if (usesNodePorts) port.nodePort ||= oldPorts.get(`${port.port}/${port.protocol ?? 'TCP'}`);
  if (next.ipFamilyPolicy !== 'SingleStack' || old.ipFamilyPolicy === 'SingleStack') return;
  // Back to one family: the second address is given up.
  next.ipFamilies = next.ipFamilies?.slice(0, 1);
  next.clusterIPs = next.clusterIPs?.slice(0, 1);
}

/**
 * Settles families, cluster IPs and node ports.
 * @throws {StatusError} `Invalid` where something is asked for that is taken, immutable, or not to be had.
 */
export function assignAddresses(service: Service, old: Service | undefined, world: World): void {
  const spec = service.spec ?? {};
  const refuse = (issue: FieldIssue) => invalid(kinds.Service, service.metadata.name ?? '', [issue]);
  assignNodePorts(service, world, refuse);
  if (spec.type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'] as const) delete spec[field];
    return;
  }
  const asked = spec.clusterIPs?.length ? spec.clusterIPs : spec.clusterIP ? [spec.clusterIP] : [];
  const before = old?.spec?.clusterIP;
  if (before && old?.spec?.type !== 'ExternalName' && asked[0] !== before)
    throw refuse(invalidValue('spec.clusterIPs[0]', asked, 'may not change once set'));
  const families = settleFamilies(spec, asked, world.serviceAddresses, refuse);
  spec.ipFamilies = families.map(nameOf);
  if (asked[0] === 'None') {
    spec.clusterIP = 'None';
    spec.clusterIPs = ['None'];
    return;
  }
  const taken = takenAddresses(service, world);
  const addresses = families.map((family, i) => {
    const wish = asked[i];
    if (wish === undefined) {
      const ip = world.serviceAddresses.allocate(family, taken);
      if (ip === undefined)
        throw refuse(
          invalidValue('spec.clusterIPs', asked, `failed to allocate a ${nameOf(family)} address: range is full`),
        );
      return ip;
    }
    const ip = tryParseIp(wish);
    const own = old?.spec?.clusterIPs?.includes(wish) ?? false;
    if (ip === undefined || (!own && !world.serviceAddresses.contains(ip)))
      throw refuse(
        invalidValue(
          'spec.clusterIPs',
          asked,
          `failed to allocate IP ${wish}: the provided IP is not in the valid range. The range of valid IPs is ${world.serviceAddresses.rangeOf(family) ?? 'none'}`,
        ),
      );
    if (taken.has(ip))
      throw refuse(
        invalidValue('spec.clusterIPs', asked, `failed to allocate IP ${wish}: provided IP is already allocated`),
      );
    return ip;
  });
  spec.clusterIP = addresses[0];
  spec.clusterIPs = addresses;
}

function settleFamilies(
  spec: ServiceSpec,
  asked: readonly string[],
  ranges: ServiceAddresses,
  refuse: (issue: FieldIssue) => Error,
): Family[] {
  const headless = asked[0] === 'None';
  const selectorless = Object.keys(spec.selector ?? {}).length === 0;
  const wanted = (spec.ipFamilies ?? []).map(familyNamed);
  for (const [i, text] of asked.entries()) {
    const ip = tryParseIp(text);
    if (ip === undefined) continue;
    if (wanted[i] !== undefined && wanted[i] !== familyOf(ip))
      throw refuse(
        invalidValue(
          `spec.clusterIPs[${i}]`,
          text,
          `expected an ${nameOf(wanted[i])} value as indicated by \`ipFamilies[${i}]\``,
        ),
      );
    wanted[i] = familyOf(ip);
  }
  // A Service without a selector and without an address has whatever endpoints its author writes, of both families.
  if (spec.ipFamilyPolicy === undefined)
    spec.ipFamilyPolicy = wanted.length > 1 || (headless && selectorless) ? 'RequireDualStack' : 'SingleStack';
  const both: readonly Family[] = headless && selectorless ? [4, 6] : ranges.families;
  for (const [i, family] of wanted.entries())
    if (!both.includes(family))
      throw refuse(invalidValue(`spec.ipFamilies[${i}]`, nameOf(family), 'not configured on this cluster'));
  if (spec.ipFamilyPolicy === 'SingleStack') {
    if (wanted.length > 1)
      throw refuse(
        invalidValue(
          'spec.ipFamilies',
          spec.ipFamilies,
          "when `ipFamilyPolicy` is 'SingleStack', may only hold up to 1 value",
        ),
      );
    const first = wanted[0] ?? ranges.families[0];
    return first === undefined ? [] : [first];
  }
  const first = wanted[0] ?? ranges.families[0] ?? 4;
  const other = wanted[1] ?? both.find((family) => family !== first);
  if (other !== undefined) return [first, other];
  if (spec.ipFamilyPolicy === 'RequireDualStack')
    throw refuse(
      invalidValue('spec.ipFamilyPolicy', 'RequireDualStack', 'this cluster is not configured for dual-stack services'),
    );
  return [first];
}

function* otherSpecs(service: Service, world: World): Generator<Record<string, unknown>> {
  for (const other of world.values('/services')) {
    const { namespace, name } = other.metadata;
    if (namespace !== service.metadata.namespace || name !== service.metadata.name) yield objectOr(other.spec);
  }
}

function takenAddresses(service: Service, world: World): Set<string> {
  const taken = new Set<string>();
  for (const { clusterIPs } of otherSpecs(service, world))
    for (const ip of isList(clusterIPs) ? clusterIPs : []) if (typeof ip === 'string') taken.add(ip);
  return taken;
}

function assignNodePorts(service: Service, world: World, refuse: (issue: FieldIssue) => Error): void {
  const spec = service.spec ?? {};
  const ports = spec.ports ?? [];
  const wants =
    spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false);
  const taken = new Set<number>();
  for (const other of otherSpecs(service, world))
    for (const port of isList(other.ports) ? other.ports : []) {
      const { nodePort } = objectOr(port);
      if (typeof nodePort === 'number') taken.add(nodePort);
    }
  for (const [i, port] of ports.entries()) {
    if (!wants && (spec.type === 'ClusterIP' || spec.type === 'ExternalName')) {
      delete port.nodePort;
      continue;
    }
    if (port.nodePort) {
      if (!world.serviceAddresses.isNodePort(port.nodePort))
        throw refuse(
          invalidValue(
            `spec.ports[${i}].nodePort`,
            port.nodePort,
            'provided port is not in the valid range. The range of valid ports is 30000-32767',
          ),
        );
      if (taken.has(port.nodePort))
        throw refuse(invalidValue(`spec.ports[${i}].nodePort`, port.nodePort, 'provided port is already allocated'));
    } else if (wants) {
      port.nodePort = world.serviceAddresses.allocateNodePort(taken);
      if (port.nodePort === undefined)
        throw refuse(invalidValue(`spec.ports[${i}].nodePort`, 0, 'failed to allocate a node port: all are taken'));
    }
    if (port.nodePort) taken.add(port.nodePort);
  }
}
