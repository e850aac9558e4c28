import { HttpTables } from '../../src/datapath/http/tables.ts';
import { endpointFlags } from '../../src/datapath/layouts.ts';
import { putMatcher } from '../../src/datapath/names.ts';
import { placeValue, prefixKeyOf } from '../../src/datapath/places.ts';
import { Transaction } from '../../src/datapath/transaction.ts';
import type { TypedMap } from '../../src/datapath/typed-map.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { familyOf, parseIp, parseMac } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { type PolicyImage, verdictCodes } from '../../src/policy/image.ts';
import { matchName } from '../../src/policy/names/matcher.ts';
import { identity, marks, type Pod } from './cluster.ts';
import type { TestNode } from './node.ts';

/** Compiled policy in the maps of a test's node: written plainly, all at once, with nothing of src/datapath's care. */

/** Where pods of the image that are not the one under test are said to be; their links are never used. */
const elsewhere = 5000;
const nowhere4 = parseIp('192.0.2.254');
const nowhere6 = parseIp('2001:db8:0:dead::1');
const mac = parseMac('02:00:00:00:aa:01');
const hostMac = parseMac('0e:00:00:00:aa:01');

/** Every endpoint of every image has an id of its own, so that connections of one are not those of another. */
let lastId = 1000;

/** An image that is in the maps. */
export interface Installed {
  /** The endpoint of a pod of the image's node. */
  pod(uid: string): Pod;
  /** The mark under which a packet from `address` comes to a pod of this node; undefined where none does. */
  markOf(address: IpAddress): number | undefined;
  /** Makes it that DNS has told a pod these names, and no others, of an address. */
  tell(uid: string, address: IpAddress, names: readonly string[]): void;
}

/** Puts an image in the place of everything that the node's maps have. Capacities are the test's business. */
export function install(node: TestNode, image: PolicyImage): Installed {
  const { peers, prefixes, ruleSets, policy, local, audits, nameMatchers, nameStates, nameAccepts, names } = node.maps;
  clear(peers);
  clear(prefixes);
  clear(ruleSets);
  clear(policy);
  clear(local);
  clear(audits);
  clear(nameMatchers);
  clear(nameStates);
  clear(nameAccepts);
  clear(names);
  for (const matcher of image.matchers.values()) putMatcher(node.maps, new Transaction(), matcher);
  for (const [address, entry] of image.peers) {
    peers.set(address, placeValue(entry));
    if (entry.kind === 'local-pod') local.set(address, elsewhere);
  }
  for (const [prefix, entry] of image.prefixes) prefixes.set(prefixKeyOf(prefix), placeValue(entry));
  const http = new HttpTables(node.maps);
  for (const set of image.ruleSets.values()) {
    const { id, probes, flags, rule, entries } = set;
    http.prepare([set], entries);
    ruleSets.set(id, { probes, flags, rule, matcher: http.matcherOf(id) });
    for (const entry of entries) {
      const { identity: who, port, protocol, portLength, precedence, rule: number, verdict, flags: options } = entry;
      policy.set(
        { set: id, identity: who, port, protocol, portLength },
        { precedence, rule: number, verdict: verdictCodes[verdict], flags: options, cell: http.cellOf(entry) },
      );
    }
  }
  node.addPod({ ...strange, ifindex: elsewhere });
  const pods = new Map<string, Pod>();
  for (const [uid, endpoint] of image.endpoints) {
    const addresses = (family: 4 | 6) => endpoint.addresses.find((address) => familyOf(address) === family);
    const pod: Pod = {
      id: ++lastId,
      identity: endpoint.identity4,
      ifindex: elsewhere + lastId,
      mac,
      hostMac,
      address4: addresses(4) ?? nowhere4,
      address6: addresses(6) ?? nowhere6,
    };
    const { addresses: _, audit, ...identitiesAndSets } = endpoint;
    if (audit !== undefined) node.maps.audits.set(pod.id, audit);
    node.addEndpoint(pod, {
      ...identitiesAndSets,
      flags: endpointFlags.ready | (audit === undefined ? 0 : endpointFlags.audited),
      ...{ addr4: addresses(4), addr6: addresses(6) },
    });
    pods.set(uid, pod);
  }
  return {
    pod: (uid) => {
      const found = pods.get(uid);
      if (found === undefined) throw new Error(`the image has no endpoint ${uid}`);
      return found;
    },
    markOf: (address) => markOf(image, address),
    tell: (uid, address, told) => {
      const id = pods.get(uid)?.id ?? 0;
      const matcher = image.matchers.get(image.endpoints.get(uid)?.names ?? 0);
      if (matcher === undefined) return;
      const known = new Set(told.flatMap((name) => matchName(matcher, name).patterns));
      const expires = process.hrtime.bigint() + 3_600_000_000_000n;
      names.set(
        { endpoint: id, address },
        { learntNs: 0n, expiresNs: [...known].map(() => expires), patterns: [...known], name: told[0] ?? '' },
      );
    },
  };
}

const strange: Pod = {
  id: 999,
  identity: identity(0),
  ifindex: elsewhere,
  mac,
  hostMac,
  address4: nowhere4,
  address6: nowhere6,
};

function markOf(image: PolicyImage, address: IpAddress): number | undefined {
  const peer = image.peers.get(address);
  if (peer === undefined) return undefined;
  if (peer.kind === 'this-node') return marks.host;
  return peer.identity === reservedIdentity.any ? undefined : marks.of(peer.identity);
}

function clear<K, V>(map: TypedMap<K, V>): void {
  for (const [key] of [...map.entries()]) map.delete(key);
}
