import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { reservedIdentity } from '../../../src/model/identity.ts';
import type { Direction } from '../../../src/model/verdict.ts';
import { compile } from '../../../src/policy/compile.ts';
import { decideSide, resolveAddress, resolveFlow } from '../../../src/policy/decide.ts';
import { findPeer, lookup } from '../../../src/policy/lookup.ts';
import { buildProxyImage } from '../../../src/policy/proxy/build.ts';
import type { ProxyImage } from '../../../src/policy/proxy/image.ts';
import { candidates } from '../../../src/policy/proxy/judge.ts';
import { parseAgentLine } from '../../../src/policy/proxy/wire.ts';
import type { Request, RequestMatch } from '../../../src/policy/request.ts';
import type { ClusterView } from '../../../src/policy/view.ts';
import { expectedOutcome, numbersOf } from '../../support/agreement.ts';
import { flowsArbitrary, flowsIn, nodeNames, viewArbitrary } from '../../support/arbitraries.ts';
import { httpMatchArbitrary, requestArbitrary, simpleMatchArbitrary } from '../../support/http.ts';

/**
 * What the proxy says of a request, the reference says of it; what the datapath lets pass by the proxy, or denies
 * before it, the reference says of every request.
 */

const wanted = Number(process.env.MYELIN_PROXY_REQUESTS ?? 20_000);

const requestsArbitrary = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: requestArbitrary },
    {
      weight: 2,
      arbitrary: fc.constantFrom<Request>(
        { kind: 'tls' },
        { kind: 'tls', serverName: 'db.example.com' },
        { kind: 'tls', serverName: 'example.net' },
      ),
    },
  ),
  { minLength: 10, maxLength: 16 },
);

const matchesArbitrary: fc.Arbitrary<readonly RequestMatch[] | undefined> = fc.oneof(
  fc.constant(undefined),
  fc.array(fc.oneof(simpleMatchArbitrary, httpMatchArbitrary), { minLength: 1, maxLength: 3 }),
  fc.constantFrom<readonly RequestMatch[]>(
    [{ kind: 'tls' }],
    [{ kind: 'tls', serverNames: [{ pattern: '*.example.com' }] }],
    [{ kind: 'tls', serverName: { none: [{ op: 'suffix', text: '.net' }] } }],
    [
      { kind: 'http', method: { some: [{ op: 'exact', text: 'GET' }] } },
      { kind: 'tls', serverNames: [{ pattern: 'example.net' }] },
    ],
  ),
);

/** Clusters in which most rules ask something of requests, and pods say something of the proxy now and then. */
const clusterArbitrary: fc.Arbitrary<ClusterView> = fc
  .tuple(
    viewArbitrary({ maxPolicies: 6 }),
    fc.array(fc.constantFrom(undefined, undefined, 'required' as const)),
    fc.array(matchesArbitrary, { minLength: 4, maxLength: 8 }),
  )
  .map(([view, says, asks]) => ({
    ...view,
    policies: view.policies.map((policy) => ({
      ...policy,
      rules: policy.rules.map((rule, i) => {
        const requests = rule.requests ?? asks[i % asks.length];
        return requests === undefined ? rule : { ...rule, requests };
      }),
    })),
    pods: new Map(
      [...view.pods].map(([uid, pod], i) => {
        const proxy = says[i];
        return [uid, proxy === undefined ? pod : { ...pod, proxy }];
      }),
    ),
  }));

test(`the proxy judges ${wanted} requests as the reference does`, () => {
  const seen = { judged: 0, allowed: 0, past: 0, ended: 0, tls: 0 };
  while (seen.judged < wanted) {
    fc.assert(
      fc.property(clusterArbitrary, flowsArbitrary(150), requestsArbitrary, (view, specs, requests) => {
        for (const node of nodeNames.slice(0, 1)) {
          const image = compile(view, node);
          const numbers = numbersOf(image);
          const wire = sent(buildProxyImage(image).image);
          for (const flow of flowsIn(view, specs)) {
            const resolved = resolveFlow(view, { ...flow, protocol: 'TCP' });
            for (const direction of ['egress', 'ingress'] satisfies Direction[]) {
              const [subject, peer] =
                direction === 'egress'
                  ? [resolved.source, resolved.destination]
                  : [resolved.destination, resolved.source];
              if (subject.kind !== 'pod' || subject.pod.node !== node) continue;
              const [own, other] = [subject.address, peer.address];
              if (own === undefined || other === undefined) continue;
              // An address that two claim is nobody's: nothing is led to the proxy from there.
              if (image.conflicts.some(({ address }) => address === own)) continue;
              const { port } = resolved;
              const found = lookup(image, subject.pod.uid, direction, other, 'TCP', port);
              if (found.byRequest === true) continue;
              const judge = candidates(oneSided(wire, own, direction), {
                client: direction === 'egress' ? own : other,
                server: direction === 'egress' ? other : own,
                port,
                identity: findPeer(image, other).identity,
                pattern: reservedIdentity.any,
              });
              const known = resolveAddress(view, other);
              for (const request of found.verdict === 'proxy' ? requests : requests.slice(0, 1)) {
                const asked = { ...resolved, request };
                const told = direction === 'egress' ? { ...asked, destination: known } : { ...asked, source: known };
                const decision = decideSide(view, told, direction);
                if (found.verdict !== 'proxy') {
                  assert.equal(found.verdict, decision.verdict, `${direction} of ${subject.pod.uid} without the proxy`);
                  seen[found.verdict === 'allow' ? 'past' : 'ended']++;
                  continue;
                }
                const { verdict, rule } = judge.judge(request);
                const { verdict: right, rule: by } = expectedOutcome(image, decision, numbers);
                assert.deepEqual({ verdict, rule }, { verdict: right, rule: by }, `${direction} of ${subject.pod.uid}`);
                assert.ok(judge.known);
                seen.judged++;
                if (verdict === 'allow') seen.allowed++;
                if (request.kind === 'tls') seen.tls++;
              }
              if (found.verdict !== 'proxy') continue;
              const whole = decideSide(
                view,
                direction === 'egress' ? { ...resolved, destination: known } : { ...resolved, source: known },
                direction,
              );
              assert.equal(judge.judge(undefined).verdict, whole.verdict, 'whatever is said on it');
            }
          }
        }
      }),
      { numRuns: 100 },
    );
  }
  assert.ok(seen.allowed > wanted / 20 && seen.tls > wanted / 10 && seen.past > wanted / 10, JSON.stringify(seen));
});

/** As the proxy has it: over the wire. */
function sent(image: ProxyImage): ProxyImage {
  const message = parseAgentLine(JSON.stringify({ type: 'policy', revision: 1, image }));
  assert.ok(message.type === 'policy');
  return message.image;
}

/** Of the image, what counts for one end in one direction; whoever is at the other is on another node. */
function oneSided(image: ProxyImage, address: string, direction: Direction): ProxyImage {
  const endpoints = image.endpoints
    .filter(({ addresses }) => addresses.some((own) => own === address))
    .map(({ ingress, egress, ...rest }) => {
      if (direction === 'egress') return egress === undefined ? rest : { ...rest, egress };
      return ingress === undefined ? rest : { ...rest, ingress };
    });
  return { ...image, endpoints };
}
