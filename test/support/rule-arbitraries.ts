import fc from 'fast-check';
import type { Selector } from '../../src/model/labels.ts';
import { parsePrefix } from '../../src/model/prefix.ts';
import type { Direction } from '../../src/model/verdict.ts';
import type { RequestMatch } from '../../src/policy/request.ts';
import type {
  Gate,
  IcmpMatch,
  NameMatch,
  PeerMatch,
  Policy,
  PolicyOptions,
  PortMatch,
  Rule,
  TextMatch,
} from '../../src/policy/rule.ts';
import { httpMatchArbitrary, manyMatchesArbitrary, simpleMatchArbitrary } from './http.ts';

/**
 * Policies straight in the rule form, over all of it: what the front ends make between them, and what none of them makes
 * yet. The words are those of arbitraries.ts, so that they meet its pods, nodes and strangers.
 */

const labelSelectorArbitrary: fc.Arbitrary<Selector> = fc.oneof(
  { weight: 2, arbitrary: fc.constant({}) },
  { weight: 2, arbitrary: fc.constantFrom('a', 'b', 'c').map((app): Selector => ({ matchLabels: { app } })) },
  {
    weight: 1,
    arbitrary: fc
      .record({
        key: fc.constantFrom('tier', 'pod-template-hash', 'app'),
        operator: fc.constantFrom('Exists', 'DoesNotExist'),
      })
      .map((requirement) => ({ matchExpressions: [requirement] })),
  },
);

export const nodeLabels = [{ zone: 'a' }, { zone: 'b', disk: 'ssd' }, {}] as const;
const nodeSelectorArbitrary = fc.constantFrom<Selector>(
  { matchLabels: { zone: 'a' } },
  { matchExpressions: [{ key: 'disk', operator: 'Exists' }] },
  { matchExpressions: [{ key: 'disk', operator: 'DoesNotExist' }] },
);

function textArbitrary(words: readonly string[]): fc.Arbitrary<TextMatch> {
  return fc.oneof(
    fc.record({ op: fc.constantFrom('exact', 'prefix', 'suffix'), text: fc.constantFrom(...words) }),
    fc.constant({ op: 'present' as const }),
  );
}

const cidrArbitrary = fc
  .constantFrom<[string, readonly string[]]>(
    ['0.0.0.0/0', []],
    ['0.0.0.0/0', ['10.0.0.0/8']],
    ['10.0.0.0/8', ['10.0.1.0/29', '10.0.0.2/32']],
    ['10.0.1.0/24', []],
    ['10.0.1.4/30', []],
    ['192.0.2.0/24', ['192.0.2.128/25']],
    ['::/0', []],
    ['fd00::/16', ['fd00:0:0:1::/125']],
    ['2001:db8::/32', ['2001:db8:0:1::/64']],
  )
  .map(([cidr, except]) => ({ cidr: parsePrefix(cidr), except: except.map(parsePrefix) }));

export const domainNames = ['db.example.com', 'www.example.com', 'example.org'] as const;

const leafArbitrary: fc.Arbitrary<PeerMatch> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('pods'),
      namespaces: fc.oneof(
        labelSelectorArbitrary.map((selector) => ({ selector })),
        fc.constantFrom('ns-x', 'ns-y', 'ns-z').map((name) => ({ name })),
      ),
      pods: labelSelectorArbitrary,
    }),
  },
  { weight: 2, arbitrary: cidrArbitrary.map((cidr): PeerMatch => ({ kind: 'cidr', ...cidr })) },
  { weight: 1, arbitrary: cidrArbitrary.map((cidr): PeerMatch => ({ kind: 'cidr', ...cidr, worldOnly: true })) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        which: fc.constantFrom('own', 'other', 'any'),
        labels: fc.option(nodeSelectorArbitrary, { nil: undefined }),
      })
      .map(({ which, labels }): PeerMatch => ({ kind: 'node', which, ...(labels === undefined ? {} : { labels }) })),
  },
  { weight: 1, arbitrary: fc.constant<PeerMatch>({ kind: 'world' }) },
  {
    weight: 1,
    arbitrary: textArbitrary(['default', 'other', 'oth']).map((match): PeerMatch => ({ kind: 'account', match })),
  },
  {
    weight: 1,
    arbitrary: textArbitrary(['ns-x', 'ns-', 'y']).map((match): PeerMatch => ({ kind: 'namespace', match })),
  },
  {
    weight: 1,
    arbitrary: textArbitrary(['cluster.local/ns/ns-x/sa/default', 'cluster.local/ns/ns-y/', '/sa/other', 'td/']).map(
      (match): PeerMatch => ({ kind: 'principal', match }),
    ),
  },
  { weight: 1, arbitrary: fc.constant<PeerMatch>({ kind: 'authenticated' }) },
);

const nameMatchArbitrary: fc.Arbitrary<NameMatch> = fc
  .constantFrom('**', '**.example.com', 'db.example.com', 'd*.example.com', 'example.net')
  .map((pattern) => ({ kind: 'name', pattern: { pattern } }));

/** Any peer: mostly of one piece, seldom three deep. */
export const peerMatchArbitrary: fc.Arbitrary<PeerMatch> = peersTo(2);

/** Any peer that a rule can have. */
const rulePeerArbitrary = fc.oneof(
  { weight: 8, arbitrary: peerMatchArbitrary },
  { weight: 2, arbitrary: nameMatchArbitrary },
);

function peersTo(depth: number): fc.Arbitrary<PeerMatch> {
  if (depth === 0) return leafArbitrary;
  const inner = peersTo(depth - 1);
  const several = fc.array(inner, { maxLength: 3 });
  return fc.oneof(
    { weight: 6, arbitrary: leafArbitrary },
    { weight: 2, arbitrary: inner.map((peer): PeerMatch => ({ kind: 'not', peer })) },
    { weight: 2, arbitrary: several.map((of): PeerMatch => ({ kind: 'all', of })) },
    { weight: 1, arbitrary: several.map((of): PeerMatch => ({ kind: 'some', of })) },
  );
}

const edges = [0, 1, 53, 79, 80, 81, 443, 1023, 1024, 8080, 32768, 65535];
const icmpArbitrary = fc
  .record({
    protocol: fc.constantFrom('ICMP', 'ICMPv6'),
    type: fc.constantFrom(undefined, 8, 128, 0, 3),
    code: fc.constantFrom(undefined, 0, 1),
  })
  .map(
    ({ protocol, type, code }): IcmpMatch => ({
      protocol,
      ...(type === undefined ? {} : { type }),
      ...(type === undefined || code === undefined ? {} : { code }),
    }),
  );
const portMatchArbitrary: fc.Arbitrary<PortMatch> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.constantFrom('TCP', 'UDP', 'SCTP'), fc.constantFrom(...edges), fc.constantFrom(...edges))
      .map(([protocol, a, b]) => ({ protocol, port: { from: Math.min(a, b), to: Math.max(a, b) } })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom('TCP', 'UDP'), fc.constantFrom('web', 'dns'))
      .map(([protocol, name]) => ({ protocol, port: { name } })),
  },
  { weight: 1, arbitrary: icmpArbitrary },
);

const fewRequestsArbitrary: fc.Arbitrary<RequestMatch[]> = fc.array(
  fc.oneof(
    fc.constantFrom<RequestMatch>(
      { kind: 'http', method: { some: [{ op: 'exact', text: 'GET' }] } },
      { kind: 'dns', names: [{ pattern: '**' }] },
      { kind: 'dns', names: [{ pattern: '*.example.com' }, { pattern: 'example.net' }] },
      { kind: 'http', serverName: { some: [{ op: 'present' }] } },
      { kind: 'tls' },
    ),
    simpleMatchArbitrary,
    httpMatchArbitrary,
  ),
  { maxLength: 3 },
);
const requestsArbitrary = fc.oneof(
  { weight: 3, arbitrary: fewRequestsArbitrary },
  { weight: 1, arbitrary: manyMatchesArbitrary },
);

const optionsArbitrary: fc.Arbitrary<PolicyOptions> = fc
  .record({
    established: fc.constantFrom('re-evaluate', 'keep', 'reset'),
    denied: fc.constantFrom('drop', 'reject'),
    mode: fc.constantFrom('enforce', 'enforce', 'enforce', 'audit'),
  })
  .map((options) => ({ ...options }));

const adminAndBaseline: readonly Rule['verdict'][] = ['allow', 'deny', 'pass'];
const styleArbitrary = (gate: Gate): fc.Arbitrary<Pick<Rule, 'level' | 'verdict'>> => {
  const middle = fc.constantFrom<Pick<Rule, 'level' | 'verdict'>>(
    { level: 'deny', verdict: 'deny' },
    { level: 'allow', verdict: 'allow' },
    // As no front end has it, but for the order of what the form can say.
    { level: 'allow', verdict: 'deny' },
    { level: 'deny', verdict: 'allow' },
  );
  if (gate === 'mesh') return middle;
  const tiers = fc.record({
    level: fc.constantFrom('admin', 'admin', 'baseline'),
    verdict: fc.constantFrom(...adminAndBaseline),
  });
  return fc.oneof(middle, tiers, tiers);
};

const seldom = <T>(arbitrary: fc.Arbitrary<T>, weight = 1) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight, arbitrary });

const ruleArbitrary = (gate: Gate) =>
  fc
    .record({
      style: styleArbitrary(gate),
      direction: fc.constantFrom<Direction>('ingress', 'egress'),
      subject: seldom(peerMatchArbitrary),
      peers: fc.oneof(fc.constant('any' as const), fc.array(rulePeerArbitrary, { maxLength: 3 })),
      ports: fc.oneof(fc.constant('any' as const), fc.array(portMatchArbitrary, { minLength: 1, maxLength: 3 })),
      priority: fc.nat(3),
      requests: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: requestsArbitrary }),
      log: seldom(fc.constant('said')),
    })
    .map(
      ({ style, direction, subject, requests, log, ...rule }) =>
        (base: Pick<Policy, 'kind' | 'namespace' | 'name'>, index: number): Rule => ({
          ...rule,
          ...style,
          ref: { ...base, direction, index },
          ...(subject === undefined ? {} : { subject }),
          ...(requests === undefined ? {} : { requests }),
          ...(log === undefined ? {} : { log }),
        }),
    );

/** A policy of any gate, with anything in it that the form has; its name is given to it. */
export const formPolicyArbitrary: fc.Arbitrary<(name: string) => Policy> = fc
  .constantFrom<Gate>('network', 'network', 'mesh')
  .chain((gate) =>
    fc.record({
      gate: fc.constant(gate),
      subject: fc.oneof(
        fc.constant<PeerMatch>({ kind: 'pods', namespaces: { selector: {} }, pods: {} }),
        peerMatchArbitrary,
      ),
      isolates: fc.oneof(fc.constant([]), fc.subarray<Direction>(['ingress', 'egress'])),
      makers: fc.array(ruleArbitrary(gate), { maxLength: 4 }),
      options: seldom(optionsArbitrary, 3),
    }),
  )
  .map(({ gate, subject, isolates, makers, options }) => (name: string): Policy => {
    const base = { kind: gate === 'mesh' ? 'Mesh' : 'Form', namespace: '', name };
    const rules = makers.map((make, index) => make(base, index));
    return { ...base, gate, subject, isolates, rules, ...(options === undefined ? {} : { options }) };
  });
