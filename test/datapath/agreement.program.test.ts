import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { familyOf, type IpAddress, parseIp } from '../../src/model/address.ts';
import { type Protocol, protocolFromNumber, protocolNumbers } from '../../src/model/port.ts';
import { type Direction, type DropReason, dropReasonFromCode } from '../../src/model/verdict.ts';
import { asIfEnforced } from '../../src/policy/audit.ts';
import { compile } from '../../src/policy/compile.ts';
import {
  decideSide,
  type PolicyFlow,
  type ResolvedFlow,
  resolveAddress,
  resolveFlow,
} from '../../src/policy/decide.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { findPeer, type LookupResult, lookup } from '../../src/policy/lookup.ts';
import { matchName } from '../../src/policy/names/matcher.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { assertAgreement, expectedOutcome } from '../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../support/arbitraries.ts';
import { e2eNodes, e2eVerdicts, e2eView } from '../support/netpol-e2e.ts';
import { frame, ip, other, ping, sctp, type Transport, tcp, udp } from '../support/packet.ts';
import { e2eCases } from '../support/shared.ts';
import { marks, type Pod } from './cluster.ts';
import { type Installed, install } from './image.ts';
import { frames, type Outcome, TestNode } from './node.ts';

/**
 * Three ways to one answer: the reference decision, the compiled entries looked up in TypeScript, and the programs
 * themselves, one packet for every flow.
 */

const runs = Number(process.env.MYELIN_PROGRAM_RUNS ?? 1500);
const node = new TestNode({
  maxEntries: { ct: 65536, peers: 1024, policy: 65536, service_flows: 65536, denials: 1024 },
});
after(() => node.close());

/** So that no flow's ports are another's. */
let sourcePort = 0;
const nextPort = () => (sourcePort = (sourcePort % 65535) + 1);

function transportOf(protocol: Protocol | number, port: number): Transport {
  const ports = { source: nextPort(), destination: port };
  const name = typeof protocol === 'number' ? protocolFromNumber(protocol) : protocol;
  switch (name) {
    case 'TCP':
      return tcp(ports);
    case 'UDP':
      return udp(ports);
    case 'SCTP':
      return sctp(ports);
    case 'ICMP':
    case 'ICMPv6':
      return ping({ id: ports.source, family: name === 'ICMP' ? 4 : 6 });
    default:
      return other(typeof protocol === 'number' ? protocol : 0);
  }
}

/** `EVENT_AUDIT` */
const auditKind = 5;

interface Said {
  readonly verdict: 'allow' | 'deny';
  readonly reason?: DropReason | undefined;
  readonly rule: number;
  /** What is said of a packet that passes: the rule by which audited policies would deny it. */
  readonly audited?: { readonly reason: DropReason | undefined; readonly rule: number };
}

function said({ action, events, reason }: Outcome): Said {
  const rule = events[0]?.rule ?? 0;
  const told = events.find(({ kind }) => kind === auditKind);
  if (told !== undefined) {
    const audited = { reason: dropReasonFromCode(told.reason), rule: told.rule };
    return { verdict: 'allow', rule, audited };
  }
  // What is rejected becomes an answer, which goes somewhere.
  return action === 'drop' || reason !== undefined
    ? { verdict: 'deny', ...(reason === undefined ? {} : { reason }), rule }
    : { verdict: 'allow', rule };
}

/** What the program of one side says of the first packet of a flow; undefined where no such packet can come about. */
function ask(
  image: PolicyImage,
  installed: Installed,
  subject: { pod: Pod; address: IpAddress },
  direction: Direction,
  peer: IpAddress,
  transport: Transport,
): Said | undefined {
  const { pod, address } = subject;
  if (direction === 'egress')
    return said(node.send(pod, frame(frames.from(pod), ip({ source: address, destination: peer }, transport))));
  const { kind, identity } = findPeer(image, peer);
  // Nobody can prove to be at an address that nobody has.
  if (kind === 'unknown-pod' || kind === 'unknown-service') return undefined;
  const mark = kind === 'world' ? marks.worldAs(identity) : installed.markOf(peer);
  assert.ok(mark !== undefined);
  return said(node.receive(pod, frame(frames.to(pod), ip({ source: peer, destination: address }, transport)), mark));
}

/** @returns How many sides were compared. */
function compare(view: ClusterView, image: PolicyImage, installed: Installed, flow: PolicyFlow): number {
  const resolved = resolveFlow(view, flow);
  let compared = assertAgreement(view, image, flow);
  for (const direction of ['egress', 'ingress'] satisfies Direction[]) {
    const [subject, peer] =
      direction === 'egress' ? [resolved.source, resolved.destination] : [resolved.destination, resolved.source];
    if (subject.kind !== 'pod' || subject.pod.node !== image.node || subject.pod.hostNetwork) continue;
    if (peer.address === undefined || subject.address === undefined) continue;
    const family = familyOf(subject.address);
    if (familyOf(peer.address) !== family) continue;
    const transport = transportOf(resolved.protocol, resolved.port);
    // Where policy is about questions, what goes to port 53 is judged by what it asks: names.program.test.ts.
    if (direction === 'egress' && resolved.port === 53 && asksNames(image, subject.pod.uid)) continue;
    if (direction === 'egress') installed.tell(subject.pod.uid, peer.address, flow.names ?? []);
    if (direction === 'egress' && wasTold(image, subject.pod.uid, flow.names)) told++;
    const at = { pod: installed.pod(subject.pod.uid), address: subject.address };
    const found = ask(image, installed, at, direction, peer.address, transport);
    if (found === undefined) continue;
    const known = resolveAddress(view, peer.address);
    const seen = direction === 'egress' ? { ...resolved, destination: known } : { ...resolved, source: known };
    const { protocol, port } = resolved;
    const by = { names: flow.names ?? [] };
    const audited = lookup(image, subject.pod.uid, direction, peer.address, protocol, port, true, by);
    const expected = understands(transport, family)
      ? expectedSaid(view, image, seen, direction, audited)
      : { verdict: 'deny', reason: 'UNKNOWN_L4', rule: 0 };
    // The first packet of a connection that its requests may be allowed on is let in; what comes on it is another matter.
    const entries = lookup(image, subject.pod.uid, direction, peer.address, protocol, port, false, by);
    if (entries.byRequest === true) assert.equal(found.verdict, 'allow', `${direction} of ${subject.pod.uid}`);
    else if (entries.verdict === 'proxy' && understands(transport, family)) {
      // Here is none.
      assert.equal(found.reason, 'PROXY_ABSENT', `${direction} of ${subject.pod.uid}`);
      proxied++;
    } else if (entries.beforeProxy === true) assert.equal(found.verdict, 'deny');
    else assert.deepEqual(found, expected, `${direction} of ${subject.pod.uid}`);
    compared++;
  }
  return compared;
}

/**
 * The decision, and what is said beside it: of what may be read, only what audited policies would deny whatever it is.
 * @param audited What the image says of the flow as if audited policies were enforced.
 */
function expectedSaid(
  view: ClusterView,
  image: PolicyImage,
  flow: ResolvedFlow,
  direction: Direction,
  { byRequest, atBest, verdict }: LookupResult,
): Said {
  const outcome = expectedOutcome(image, decideSide(view, flow, direction));
  const wanted = expectedOutcome(image, decideSide(asIfEnforced(view), flow, direction));
  if (outcome.verdict === 'deny' || wanted.verdict === 'allow' || byRequest === true || verdict === 'proxy')
    return outcome;
  audits++;
  const { reason, rule } = atBest ?? wanted;
  return { ...outcome, audited: { reason, rule } };
}

let audits = 0;
let proxied = 0;
let told = 0;

function asksNames(image: PolicyImage, uid: string): boolean {
  return image.matchers.get(image.endpoints.get(uid)?.names ?? 0)?.asks === true;
}

function wasTold(image: PolicyImage, uid: string, names: readonly string[] = []): boolean {
  const matcher = image.matchers.get(image.endpoints.get(uid)?.names ?? 0);
  return matcher !== undefined && names.some((name) => matchName(matcher, name).patterns.length > 0);
}

function understands({ protocol }: Transport, family: 4 | 6): boolean {
  const { TCP, UDP, SCTP, ICMP, ICMPv6 } = protocolNumbers;
  return [TCP, UDP, SCTP, family === 4 ? ICMP : ICMPv6].some((known) => known === protocol);
}

test('the programs say what the reference and the compiled image say, and name the same rule', () => {
  let compared = 0;
  fc.assert(
    fc.property(viewArbitrary(), flowsArbitrary(20, { named: true }), (view, flows) => {
      for (const name of nodeNames) {
        const image = compile(view, name);
        const installed = install(node, image);
        for (const flow of flowsIn(view, flows)) compared += compare(view, image, installed, flow);
      }
    }),
    { numRuns: runs, interruptAfterTimeLimit: 20_000 },
  );
  assert.ok(compared > 1000, `only ${compared} sides were compared`);
  assert.ok(audits > 20, `only ${audits} would have been denied by what is audited`);
  assert.ok(told > 20, `only ${told} of addresses with names that a rule is about`);
  assert.ok(proxied > 20, `only ${proxied} connections were for a proxy to judge`);
});

/** Gives every pod a service with its port. @returns The services' addresses by the pods' UIDs. */
function serveEverybody(view: ClusterView, port: number, protocol: number): Map<string, IpAddress> {
  const fronts = new Map<string, IpAddress>();
  for (const [i, [uid, { addresses }]] of [...view.pods].entries()) {
    const front = { address: parseIp(`10.96.1.${i + 1}`), port, protocol };
    node.addService(
      front,
      addresses.map((address) => ({ address, port })),
      i + 1,
    );
    fronts.set(uid, front.address);
  }
  return fronts;
}

test('the Kubernetes NetworkPolicy suite: every verdict, at both interfaces', () => {
  let verdicts = 0;
  for (const { Name, Steps } of e2eCases())
    for (const step of Steps) {
      const view = e2eView(step);
      // Each node's programs in turn: what leaves a pod of the first arrives at one of the second.
      const passed = new Map<string, boolean>();
      for (const name of e2eNodes) {
        const image = compile(view, name);
        const installed = install(node, image);
        const fronts = serveEverybody(view, step.Port, protocolNumbers[step.Protocol]);
        for (const { from, to, flow } of e2eVerdicts(step))
          for (const direction of ['egress', 'ingress'] satisfies Direction[]) {
            const [own, peer] = direction === 'egress' ? [from, to] : [to, from];
            const subject = view.pods.get(own);
            const [address] = subject?.addresses ?? [];
            // The suite asks at the service, which arrives at its pod.
            const peerAddress = direction === 'egress' ? fronts.get(peer) : view.pods.get(peer)?.addresses[0];
            if (subject?.node !== name) continue;
            assert.ok(address !== undefined && peerAddress !== undefined);
            const transport = transportOf(flow.protocol, flow.port);
            const answer = ask(
              image,
              installed,
              { pod: installed.pod(own), address },
              direction,
              peerAddress,
              transport,
            );
            passed.set(`${from} ${to}`, (passed.get(`${from} ${to}`) ?? true) && answer?.verdict === 'allow');
          }
      }
      for (const { from, to, allowed } of e2eVerdicts(step)) {
        assert.equal(passed.get(`${from} ${to}`), allowed, `${Name}: ${from} to ${to}`);
        verdicts++;
      }
    }
  assert.equal(verdicts, 506);
});
