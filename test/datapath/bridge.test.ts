import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bridgesBetween } from '../../src/datapath/bridge.ts';
import { parseIp } from '../../src/model/address.ts';
import { type IdentityNumber, identityNumber, reservedIdentity } from '../../src/model/identity.ts';
import { portPrefixes } from '../../src/model/port.ts';
import type { IdentityClass, PeerEntry, PolicyEntry, PolicyImage, RuleSet } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';

const oldIdentities = [300, 301, 302].map(identityNumber);
const newIdentities = [400, 401].map(identityNumber);
const addresses = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'].map(parseIp);
const set = 7;
const probes = [
  { protocol: 6, port: 80 },
  { protocol: 6, port: 81 },
  { protocol: 17, port: 80 },
  { protocol: 1, port: 0 },
];

function image(
  identities: readonly IdentityNumber[],
  owners: readonly (IdentityNumber | undefined)[],
  sets: RuleSet[],
): PolicyImage {
  const peers = new Map<(typeof addresses)[number], PeerEntry>();
  for (const [i, address] of addresses.entries()) {
    const identity = owners[i];
    if (identity !== undefined) peers.set(address, { identity, kind: 'remote-pod', owner: `pod-${i}` });
  }
  const placeholder = (number: IdentityNumber): IdentityClass => ({
    key: String(number),
    kind: 'pod',
    namespace: 'n',
    serviceAccount: 's',
    labels: {},
    namedPorts: [],
  });
  return {
    node: 'n',
    identities: new Map(identities.map((number) => [number, placeholder(number)])),
    peers,
    prefixes: new Map(),
    ruleSets: new Map(sets.map((own) => [own.id, own])),
    endpoints: new Map([
      [
        'self',
        {
          identity4: reservedIdentity.any,
          identity6: reservedIdentity.any,
          addresses: [],
          ingressAdminSet: 0,
          ingressSet: set,
          ingressMeshSet: 0,
          egressAdminSet: 0,
          egressSet: set,
          egressMeshSet: 0,
          names: 0,
        },
      ],
    ]),
    rules: new Map(),
    conflicts: [],
    patterns: new Map(),
    matchers: new Map(),
    counters: { identity: 500, ruleSet: 8, rule: 16, pattern: 0xf0_0000, matcher: 1 },
  };
}

const entryArbitrary = fc
  .record({
    identity: fc.constantFrom(reservedIdentity.any, ...oldIdentities),
    match: fc.constantFrom(
      { protocol: 0, port: 0, portLength: 0 },
      ...portPrefixes({ from: 0, to: 65535 }).map(({ port, length }) => ({ protocol: 6, port, portLength: length })),
      { protocol: 6, port: 80, portLength: 16 },
      { protocol: 6, port: 80, portLength: 15 },
      { protocol: 17, port: 80, portLength: 16 },
    ),
    precedence: fc.integer({ min: 1, max: 6 }),
    verdict: fc.constantFrom<PolicyEntry['verdict']>('allow', 'allow', 'deny', 'deny', 'pass'),
  })
  .map(({ match, ...entry }): PolicyEntry => ({ ...match, ...entry, rule: 20 + entry.precedence, flags: 0 }));

const cases = fc.record({
  entries: fc.uniqueArray(entryArbitrary, {
    maxLength: 12,
    selector: (entry) => [entry.identity, entry.protocol, entry.port, entry.portLength].join(),
  }),
  isolated: fc.boolean(),
  before: fc.array(fc.option(fc.constantFrom(...oldIdentities), { nil: undefined, freq: 6 }), {
    minLength: 4,
    maxLength: 4,
  }),
  after: fc.array(fc.constantFrom(...newIdentities), { minLength: 4, maxLength: 4 }),
});

test('under the old rule sets, a new identity is allowed no more than all of its addresses were', () => {
  let bridged = 0;
  fc.assert(
    fc.property(cases, ({ entries, isolated, before, after }) => {
      const ruleSet: RuleSet = {
        id: set,
        key: '',
        direction: 'ingress',
        stage: 'network',
        probes: (1 << 0) | (1 << 15) | (1 << 16) | (1 << 17),
        flags: isolated ? 1 : 0,
        rule: 0,
        entries,
      };
      const old = image(oldIdentities, before, [ruleSet]);
      const next = image(newIdentities, after, []);
      const bridges = bridgesBetween(old, next);
      const added = bridges.flatMap((bridge) => bridge.entries);
      bridged += added.length;
      for (const bridge of bridges) assert.equal(bridge.set, set);
      const meanwhile = { ...image(newIdentities, after, [{ ...ruleSet, entries: [...entries, ...added] }]) };
      for (const identity of newIdentities) {
        const members = addresses.filter((_, i) => after[i] === identity);
        const known = members.filter((address) => old.peers.has(address));
        for (const { protocol, port } of probes) {
          const verdictIn = (which: PolicyImage, address: (typeof addresses)[number]) =>
            lookup(which, 'self', 'ingress', address, protocol, port).verdict;
          const were = new Set(known.map((address) => verdictIn(old, address)));
          for (const address of members) {
            const now = verdictIn(meanwhile, address);
            if (were.has('deny')) assert.equal(now, 'deny', 'one of them was denied');
            // Of one kind before and known all of them: nothing changes at all.
            const origins = new Set(members.map((member) => old.peers.get(member)?.identity));
            if (origins.size === 1 && known.length > 0) assert.equal(now, verdictIn(old, address));
          }
        }
      }
    }),
    { numRuns: 2000 },
  );
  assert.ok(bridged > 1000, 'there were bridges to test');
});

test('sets that stay, and identities that were there, get no bridge', () => {
  const entry: PolicyEntry = {
    identity: identityNumber(300),
    protocol: 6,
    port: 80,
    portLength: 16,
    precedence: 1,
    rule: 20,
    verdict: 'allow',
    flags: 0,
  };
  const own: RuleSet = {
    id: set,
    key: '',
    direction: 'ingress',
    stage: 'network',
    probes: 1 << 16,
    flags: 1,
    rule: 0,
    entries: [entry],
  };
  const owners = [identityNumber(300), undefined, undefined, undefined];
  const old = image(oldIdentities, owners, [own]);
  assert.deepEqual(bridgesBetween(old, image(newIdentities, [identityNumber(400)], [own])), []);
  assert.deepEqual(bridgesBetween(old, image(oldIdentities, [identityNumber(301)], [])), []);
  assert.equal(bridgesBetween(old, image(newIdentities, [identityNumber(400)], [])).length, 1);
});
