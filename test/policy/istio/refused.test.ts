import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAuthorizationPolicy } from '../../../src/policy/istio/authorization.ts';
import { parsePeerAuthentication } from '../../../src/policy/istio/peer-authentication.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { authentication, authorization, issuesOf, verdict } from './istio.ts';

const metadata = { namespace: 'shop', name: 'p' };
const source = (own: object) => ({ rules: [{ from: [{ source: own }] }] });
const operation = (own: object) => ({ rules: [{ to: [{ operation: own }] }] });
const when = (own: object) => ({ rules: [{ when: [own] }] });
const at = {
  source: 'spec.rules[0].from[0].source',
  operation: 'spec.rules[0].to[0].operation',
  when: 'spec.rules[0].when[0]',
};

const refused: readonly [string, object, string][] = [
  ['an unknown field', { colour: 'red' }, 'spec.colour: is not a field of this kind'],
  ['an unknown action', { action: 'REFUSE' }, 'spec.action: expected "ALLOW" or "DENY" or "AUDIT" or "CUSTOM"'],
  [
    'DENY without rules',
    { action: 'DENY' },
    'spec.rules: DENY without rules is never asked; a rule {} is about everything',
  ],
  ['CUSTOM without provider', { action: 'CUSTOM', rules: [{}] }, 'spec.provider: must have a name'],
  ['a provider without CUSTOM', { provider: { name: 'x' } }, 'spec.provider: is only for the action CUSTOM'],
  [
    'selector beside targetRefs',
    { selector: {}, targetRefs: [{ kind: 'Service', name: 'x' }] },
    'spec.selector: must not stand beside another of selector, targetRef and targetRefs',
  ],
  [
    'a target of another kind',
    { targetRefs: [{ kind: 'Pod', name: 'x' }] },
    'spec.targetRefs[0]: must name a Gateway, GatewayClass, Service or ServiceEntry',
  ],
  [
    'a wildcard in a selector',
    { selector: { matchLabels: { app: 'c*' } } },
    'spec.selector.matchLabels.app: must not have a wildcard',
  ],
  [
    'a label that is a number',
    { selector: { matchLabels: { app: 1 } } },
    'spec.selector.matchLabels.app: expected a text (quote numbers and booleans)',
  ],
  [
    'expressions',
    { selector: { matchExpressions: [] } },
    'spec.selector.matchExpressions: is not a field of this kind',
  ],
  ['an empty from', { rules: [{ from: [] }] }, 'spec.rules[0].from: must have at least one element'],
  ['an empty to', { rules: [{ to: [] }] }, 'spec.rules[0].to: must have at least one element'],
  ['an empty source', source({}), `${at.source}: must not be empty`],
  ['a source of empty lists', source({ principals: [] }), `${at.source}: must not be empty`],
  ['an empty operation', operation({}), `${at.operation}: must not be empty`],
  ['an empty value', source({ principals: [''] }), `${at.source}.principals[0]: must not be empty`],
  [
    'accounts beside names',
    source({ serviceAccounts: ['a'], namespaces: ['b'] }),
    `${at.source}: must not have serviceAccounts beside principals or namespaces`,
  ],
  [
    'a wildcard in an account',
    source({ serviceAccounts: ['a*'] }),
    `${at.source}.serviceAccounts[0]: is neither a service account’s name nor namespace/name, without wildcards`,
  ],
  [
    '17 accounts',
    source({ serviceAccounts: Array(17).fill('a') }),
    `${at.source}.serviceAccounts: must have at most 16 elements`,
  ],
  [
    'an address that is none',
    source({ ipBlocks: ['10.0.0'] }),
    `${at.source}.ipBlocks[0]: is neither an IP address nor a CIDR prefix`,
  ],
  ['a port that is none', operation({ ports: ['http'] }), `${at.operation}.ports[0]: is not a port from 0 to 65535`],
  ['a port that is a number', operation({ ports: [80] }), `${at.operation}.ports[0]: expected a text`],
  ['a port too high', operation({ notPorts: ['65536'] }), `${at.operation}.notPorts[0]: is not a port from 0 to 65535`],
  [
    'a template inside a segment',
    operation({ paths: ['/foo/{*}.txt'] }),
    `${at.operation}.paths[0]: must not have { or } but as a segment {*} or {**}`,
  ],
  [
    'an operator after {**}',
    operation({ paths: ['/{**}/foo/{*}'] }),
    `${at.operation}.paths[0]: must not have an operator after {**}`,
  ],
  [
    'a star beside a template',
    operation({ notPaths: ['/*/baz/{*}'] }),
    `${at.operation}.notPaths[0]: must have nothing but characters of paths between the slashes of a template`,
  ],
  [
    'an unknown attribute',
    when({ key: 'destination.labels[x]', values: ['a'] }),
    `${at.when}: there is no attribute "destination.labels[x]"`,
  ],
  [
    'a header without a name',
    when({ key: 'request.headers[]', values: ['a'] }),
    `${at.when}: there is no attribute "request.headers[]"`,
  ],
  ['a condition without values', when({ key: 'source.ip' }), `${at.when}: must have values or notValues`],
  [
    'a condition’s wrong value',
    when({ key: 'source.ip', notValues: ['x'] }),
    `${at.when}: "x" is no value of source.ip`,
  ],
  ['a misspelt negation', source({ notprincipals: ['x'] }), `${at.source}.notprincipals: is not a field of this kind`],
];
for (const [name, spec, expected] of refused)
  test(`AuthorizationPolicy: ${name}`, () =>
    assert.equal(issuesOf(parseAuthorizationPolicy({ metadata, spec }))[0], expected));

const selector = { matchLabels: { app: 'cart' } };
const refusedPeers: readonly [string, object, string][] = [
  [
    'an unknown mode',
    { mtls: { mode: 'BLAH' } },
    'spec.mtls.mode: expected "UNSET" or "DISABLE" or "PERMISSIVE" or "STRICT"',
  ],
  ['an unknown field', { mtls: { mode: 'STRICT', since: 1 } }, 'spec.mtls.since: is not a field of this kind'],
  [
    'a port that is none',
    { selector, portLevelMtls: { acd: {} } },
    'spec.portLevelMtls.acd: is not a port from 1 to 65535',
  ],
  ['port 0', { selector, portLevelMtls: { 0: {} } }, 'spec.portLevelMtls.0: is not a port from 1 to 65535'],
  [
    'a port too high',
    { selector, portLevelMtls: { 42949672: {} } },
    'spec.portLevelMtls.42949672: is not a port from 1 to 65535',
  ],
  ['ports without a selector', { portLevelMtls: { 80: {} } }, 'spec.portLevelMtls: needs a selector with labels'],
  [
    'ports with an empty selector',
    { selector: {}, portLevelMtls: { 80: {} } },
    'spec.portLevelMtls: needs a selector with labels',
  ],
  ['no ports', { selector, portLevelMtls: {} }, 'spec.portLevelMtls: must have at least one port'],
];
for (const [name, spec, expected] of refusedPeers)
  test(`PeerAuthentication: ${name}`, () =>
    assert.equal(issuesOf(parsePeerAuthentication({ metadata, spec }))[0], expected));

const broken = (result: ReturnType<typeof parseAuthorizationPolicy>): Policy => {
  assert.ok(!result.ok && result.broken !== undefined);
  return result.broken;
};

test('an AuthorizationPolicy that is not understood closes what it selects, whatever else allows', () => {
  const allow = authorization('shop/a', { rules: [{}] });
  const selected = broken(parseAuthorizationPolicy({ metadata, spec: { selector, colour: 'red' } }));
  assert.equal(verdict([allow, selected], 'shop/front'), 'deny');
  assert.equal(verdict([allow, selected], 'shop/front', { to: 'shop/admin' }), 'allow');
  const all = broken(parseAuthorizationPolicy({ metadata, spec: { selector: 7 } }));
  assert.equal(verdict([allow, all], 'shop/front', { to: 'shop/admin' }), 'deny');
  assert.equal(verdict([allow, all], 'shop/front', { to: 'ops/front' }), 'allow');
  const root = broken(parseAuthorizationPolicy({ metadata: { ...metadata, namespace: 'istio-system' }, spec: 7 }));
  assert.equal(verdict([allow, root], 'shop/front', { to: 'ops/front' }), 'deny');
});

test('a PeerAuthentication that is not understood asks for proof', () => {
  const open = authentication('shop/open', { mtls: { mode: 'PERMISSIVE' } });
  const strict = broken(parsePeerAuthentication({ metadata, spec: { mtls: { mode: 'MAYBE' } } }));
  assert.equal(verdict([open, strict], '203.0.113.9'), 'deny');
  assert.equal(verdict([open, strict], 'shop/front'), 'allow');
});
