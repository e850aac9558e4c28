import assert from 'node:assert/strict';
import type { Direction, SideDecision } from '../../src/model/verdict.ts';
import { asIfEnforced } from '../../src/policy/audit.ts';
import { decideSide, type PolicyFlow, resolveAddress, resolveFlow } from '../../src/policy/decide.ts';
import { type PolicyImage, reservedRules } from '../../src/policy/image.ts';
import { type LookupResult, lookup } from '../../src/policy/lookup.ts';
import type { ClusterView } from '../../src/policy/view.ts';
import { seenBy } from './arbitraries.ts';

/** What an evaluation of compiled entries must say where the reference says `decision`. */
export interface ExpectedOutcome {
  readonly verdict: 'allow' | 'deny';
  readonly reason?: LookupResult['reason'];
  /** A RuleRef of the image, or one of the reserved numbers. */
  readonly rule: number;
}

/** Translates a reference decision into the numbers of an image. */
export function expectedOutcome(
  image: PolicyImage,
  decision: SideDecision,
  numbers: ReadonlyMap<string, number> = numbersOf(image),
): ExpectedOutcome {
  const numberOf = (ref: unknown): number =>
    numbers.get(JSON.stringify(ref)) ?? assert.fail(`the image has no number for ${JSON.stringify(ref)}`);
  if (decision.verdict === 'allow') {
    if (decision.by === 'rule') return { verdict: 'allow', rule: numberOf(decision.rule) };
    if (decision.by === 'default') return { verdict: 'allow', rule: reservedRules.none };
    return { verdict: 'allow', rule: decision.why.includes('itself') ? reservedRules.self : reservedRules.ownNode };
  }
  switch (decision.by) {
    case 'rule':
      return { verdict: 'deny', reason: 'POLICY_DENIED_EXPLICIT', rule: numberOf(decision.rule) };
    case 'isolation':
      return { verdict: 'deny', reason: 'POLICY_DENIED', rule: numberOf(decision.policies[0]) };
    case 'default':
      return { verdict: 'deny', reason: 'POLICY_DENIED', rule: reservedRules.defaultDeny };
    case 'reason':
      return { verdict: 'deny', reason: decision.reason, rule: reservedRules.none };
  }
}

/** The numbers of an image's rules, by what they stand for. */
export function numbersOf(image: PolicyImage): Map<string, number> {
  return new Map([...image.rules].map(([number, ref]) => [JSON.stringify(ref), number]));
}

/**
 * Holds every side of a flow that has an endpoint on the image's node against the reference.
 * @returns How many sides were compared.
 */
export function assertAgreement(view: ClusterView, image: PolicyImage, flow: PolicyFlow): number {
  const resolved = resolveFlow(view, flow);
  const numbers = numbersOf(image);
  let compared = 0;
  for (const direction of ['egress', 'ingress'] satisfies Direction[]) {
    const [subject, peer] =
      direction === 'egress' ? [resolved.source, resolved.destination] : [resolved.destination, resolved.source];
    if (subject.kind !== 'pod' || subject.pod.node !== image.node || peer.address === undefined) continue;
    const { protocol, port, names = [] } = resolved;
    const flowSeen = seenBy(direction, resolved);
    const asked = flowSeen.request?.kind === 'http' ? { request: flowSeen.request } : {};
    const found = lookup(image, subject.pod.uid, direction, peer.address, protocol, port, false, { names, ...asked });
    // The datapath knows the peer by its address only, which may be nobody's.
    const known = resolveAddress(view, peer.address);
    const seen = direction === 'egress' ? { ...flowSeen, destination: known } : { ...flowSeen, source: known };
    const expected = expectedOutcome(image, decideSide(view, seen, direction), numbers);
    const { verdict, reason, rule } = found;
    // What the proxy judges is held against the reference in proxy/judge.test.ts.
    if (found.beforeProxy === true) assert.equal(verdict, expected.verdict);
    else if (verdict !== 'proxy')
      assert.deepEqual(
        { verdict, rule, ...(reason === undefined ? {} : { reason }) },
        expected,
        `${direction} of ${subject.pod.uid}`,
      );
    compared++;
    if (image.endpoints.get(subject.pod.uid)?.audit === undefined) continue;
    const told = lookup(image, subject.pod.uid, direction, peer.address, protocol, port, true, { names, ...asked });
    if (told.verdict === 'proxy' || told.beforeProxy === true) continue;
    assert.deepEqual(
      { verdict: told.verdict, rule: told.rule, ...(told.reason === undefined ? {} : { reason: told.reason }) },
      expectedOutcome(image, decideSide(asIfEnforced(view), seen, direction), numbers),
      `${direction} of ${subject.pod.uid}, as if audited policies were enforced`,
    );
  }
  return compared;
}
