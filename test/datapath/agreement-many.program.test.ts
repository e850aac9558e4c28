import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { familyOf } from '../../src/model/address.ts';
import { protocolNumbers } from '../../src/model/port.ts';
import { type Direction, dropReasons } from '../../src/model/verdict.ts';
import { asIfEnforced } from '../../src/policy/audit.ts';
import { compile } from '../../src/policy/compile.ts';
import { decideSide, type PolicyFlow, resolveAddress, resolveFlow } from '../../src/policy/decide.ts';
import type { PolicyImage } from '../../src/policy/image.ts';
import { lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { type ExpectedOutcome, expectedOutcome, numbersOf } from '../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, seenBy, viewArbitrary } from '../support/arbitraries.ts';
import { loadCases, saveCase } from '../support/cases.ts';
import { type Question, Questioner } from './questions.ts';

/**
 * The reference decision, the compiled image looked up, and the datapath's own code over the maps: of every flow of
 * random clusters, under policies of all kinds together and of the whole rule form, all three say the same.
 * MYELIN_POLICY_FLOWS asks for more than the usual hundred thousand; what fails is shrunk and kept in test/policy/cases.
 */

const wanted = Number(process.env.MYELIN_POLICY_FLOWS ?? 100_000);
const perCluster = 120;
const questioner = new Questioner();
after(() => questioner[Symbol.dispose]());

interface Asked {
  readonly question: Question;
  readonly expected: ExpectedOutcome;
  readonly flags: number;
  readonly what: string;
  /** Of a connection whose requests could be read: whether it is let in, perhaps to be read. */
  readonly admitted: boolean | undefined;
  /** The connection is the proxy's to judge, as test/policy/proxy/judge.test.ts has it do: by this rule. */
  readonly proxied?: { readonly rule: number; readonly flags: number };
}

/** `POLICY_PROXIED` of bpf/lib/policy.h. */
const proxiedCode = 254;
/** How many connections were the proxy's, of all that were compared. */
let proxiedCount = 0;

/** @returns How many of the flows were compared at one side at least. */
function compareAll(view: ClusterView, flows: readonly PolicyFlow[]): number {
  const compared = new Set<PolicyFlow>();
  for (const node of nodeNames) {
    const image = compile(view, node);
    const numbers = numbersOf(image);
    const asked: Asked[] = [];
    for (const flow of flows)
      for (const direction of ['egress', 'ingress'] satisfies Direction[]) {
        for (const audited of [false, true]) {
          const one = askedOf(view, image, numbers, flow, direction, audited);
          if (one === undefined) continue;
          asked.push(one);
          compared.add(flow);
        }
      }
    questioner.install(image);
    const answers = questioner.ask(asked.map(({ question }) => question));
    for (const [i, { expected, flags, what, admitted, proxied }] of asked.entries()) {
      const answer = answers[i];
      assert.ok(answer !== undefined);
      const reason = expected.reason === undefined ? 0 : dropReasons[expected.reason].code;
      const { reason: said, rule, flags: options } = answer;
      if (proxied !== undefined) {
        proxiedCount++;
        if (said === proxiedCode) assert.deepEqual({ rule, flags: options }, proxied, what);
        else assert.deepEqual([said !== 0, answer.lenient], [true, proxiedCode], what);
        continue;
      }
      assert.deepEqual({ reason: said, rule, flags: options }, { reason, rule: expected.rule, flags }, what);
      if (admitted !== undefined) assert.equal(said === 0 || answer.lenient === 0, admitted, what);
    }
  }
  return compared.size;
}

/** Holds the lookup against the reference; what the datapath's policy code is asked about comes back. */
function askedOf(
  view: ClusterView,
  image: PolicyImage,
  numbers: ReadonlyMap<string, number>,
  flow: PolicyFlow,
  direction: Direction,
  audited: boolean,
): Asked | undefined {
  const resolved = resolveFlow(view, flow);
  const [subject, peer] =
    direction === 'egress' ? [resolved.source, resolved.destination] : [resolved.destination, resolved.source];
  if (subject.kind !== 'pod' || subject.pod.node !== image.node || peer.address === undefined) return undefined;
  const endpoint = image.endpoints.get(subject.pod.uid);
  if (endpoint === undefined || !subject.pod.addresses.some((own) => familyOf(own) === familyOf(peer.address ?? own)))
    return undefined;
  const { audit } = endpoint;
  if (audited && audit === undefined) return undefined;
  const known = resolveAddress(view, peer.address);
  const told = seenBy(direction, resolved);
  const asked = told.request?.kind === 'http' ? { request: told.request } : {};
  const seen = direction === 'egress' ? { ...told, destination: known } : { ...told, source: known };
  const decision = decideSide(audited ? asIfEnforced(view) : view, seen, direction);
  const expected = expectedOutcome(image, decision, numbers);
  const { protocol, port } = resolved;
  const what = `${audited ? 'audited ' : ''}${direction} of ${subject.pod.uid} with ${peer.address}, ${protocol} ${port}`;
  const found = lookup(image, subject.pod.uid, direction, peer.address, protocol, port, audited, asked);
  const { verdict, reason, rule, flags, byRequest, beforeProxy } = found;
  const proxied = verdict === 'proxy' ? { rule, flags } : undefined;
  if (beforeProxy === true) assert.equal(verdict, expected.verdict, what);
  else if (proxied === undefined)
    assert.deepEqual({ verdict, rule, ...(reason === undefined ? {} : { reason }) }, expected, what);
  // Before policy is asked, the programs look whether there is anything to ask: agreement.program.test.ts.
  if (decision.by === 'exempt' || decision.by === 'reason') return undefined;
  const number = typeof protocol === 'number' ? protocol : protocolNumbers[protocol];
  const question = {
    endpoint: audited ? { ...endpoint, ...audit } : endpoint,
    direction,
    remote: peer.address,
    protocol: number,
    port,
    ...(proxied === undefined ? asked : {}),
  };
  const readable = direction === 'ingress' && protocol === 'TCP';
  const admitted = readable && asked.request === undefined ? verdict === 'allow' || byRequest === true : undefined;
  // Where it is denied before the proxy is asked, the reference may name another rule.
  const said =
    beforeProxy === true ? { verdict: 'deny' as const, ...(reason === undefined ? {} : { reason }), rule } : expected;
  return { question, expected: said, flags, what, admitted, ...(proxied === undefined ? {} : { proxied }) };
}

test('clusters that once were decided differently', () => {
  for (const { name, view, flows } of loadCases()) assert.doesNotThrow(() => compareAll(view, flows), name);
});

test(`reference, compiled entries and datapath agree about ${wanted} flows`, () => {
  let compared = 0;
  while (compared < wanted) {
    const property = fc.property(
      viewArbitrary({ maxPolicies: 8 }),
      flowsArbitrary(perCluster, { requests: true }),
      (view, specs) => {
        compared += compareAll(view, flowsIn(view, specs));
      },
    );
    const found = fc.check(property, { numRuns: 100 });
    if (!found.failed) continue;
    assert.ok(found.counterexample !== null);
    const [view, specs] = found.counterexample;
    const file = saveCase(view, flowsIn(view, specs));
    throw new Error(`kept as ${file}, seed ${found.seed}, path ${found.counterexamplePath}`, {
      cause: found.errorInstance,
    });
  }
  assert.ok(proxiedCount > wanted / 500, `only ${proxiedCount} connections were the proxy’s`);
});
