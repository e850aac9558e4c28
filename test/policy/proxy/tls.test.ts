import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'yaml';
import { parseIp } from '../../../src/model/address.ts';
import { identityNumber } from '../../../src/model/identity.ts';
import { parseCiliumPolicy } from '../../../src/policy/cilium/parse.ts';
import { compile } from '../../../src/policy/compile.ts';
import { buildProxyImage } from '../../../src/policy/proxy/build.ts';
import { candidates } from '../../../src/policy/proxy/judge.ts';
import { type Hello, tlsAsked } from '../../../src/policy/proxy/tls.ts';
import { parseAgentLine } from '../../../src/policy/proxy/wire.ts';
import type { TlsUse } from '../../../src/policy/tls.ts';
import { allow } from '../../proxy/harness.ts';
import { clusterWith } from '../../support/cluster.ts';
import { namespaced } from '../cilium/flows.ts';

const secret = (name: string) => ({ name, by: 'shop', certificate: 'tls.crt', privateKey: 'tls.key' });
const ended = (name = 'a'): TlsUse => ({ terminate: secret(name) });
const opened = (name = 'a'): TlsUse => ({ originate: { name, by: 'shop', trustedCA: 'ca.crt' } });
const clear: Hello = { kind: 'clear' };
const named = (serverName: string): Hello => ({ kind: 'tls', serverName });
const http = { kind: 'http' } as const;
const httpFor = (text: string) => ({ ...http, serverName: { some: [{ op: 'exact', text }] } }) as const;

test('what the rules want of TLS depends on how the client begins', () => {
  const asked = (tls: readonly (TlsUse | undefined)[], hello: Hello) =>
    tlsAsked(
      tls.map((one) => ({ ...allow(http), ...(one === undefined ? {} : { tls: one }) })),
      hello,
    );
  assert.deepEqual(asked([undefined], clear), { kind: 'nothing' });
  assert.deepEqual(asked([undefined, ended(), opened()], named('x')), { kind: 'use', ...ended() });
  assert.deepEqual(asked([{ ...ended(), ...opened() }, ended()], named('x')), {
    kind: 'use',
    ...ended(),
    ...opened(),
  });
  assert.deepEqual(asked([undefined, opened()], clear), { kind: 'use', ...opened() });
  assert.deepEqual(asked([opened()], named('x')), { kind: 'nothing' });
  assert.deepEqual(asked([opened(), ended()], clear), { kind: 'closed', why: 'clear' });
  assert.deepEqual(asked([ended('a'), ended('b')], named('x')), { kind: 'closed', why: 'conflict' });
  assert.deepEqual(asked([opened('a'), opened('b')], clear), { kind: 'closed', why: 'conflict' });
});

test('names of servers tell which of two Secrets is meant', () => {
  const rules = ['a', 'b'].map((name) => ({ ...allow(httpFor(`${name}.example`)), tls: ended(name) }));
  assert.deepEqual(tlsAsked(rules, named('b.example')), { kind: 'use', ...ended('b') });
  assert.deepEqual(tlsAsked(rules, named('c.example')), { kind: 'nothing' });
  assert.deepEqual(tlsAsked(rules, { kind: 'tls' }), { kind: 'nothing' });
});

test('a Secret that several may name is had by whoever has the least right to it', () => {
  const rules = ['', 'shop'].map((by) => ({ ...allow(http), tls: { terminate: { ...secret('a'), by } } }));
  for (const order of [rules, rules.toReversed()])
    assert.deepEqual(tlsAsked(order, named('x')), { kind: 'use', terminate: { ...secret('a'), by: 'shop' } });
});

test('a policy comes to the proxy with what it wants of TLS, and what that needs', () => {
  const port = { port: '443', protocol: 'TCP' };
  const at = (name: string) => ({ secret: { namespace: 'myelin-secrets', name } });
  const egress = (name: string) => ({
    toPorts: [{ ports: [port], terminatingTLS: at(name), originatingTLS: at(name), rules: { http: [{ path: '/a' }] } }],
  });
  const policies = (...names: readonly string[]) =>
    namespaced({ endpointSelector: {}, egress: names.map((name) => egress(name)) });
  const build = (...names: readonly string[]) => {
    const view = clusterWith(policies(...names));
    const [pod] = [...view.pods.values()].filter(({ namespace }) => namespace === policies('a')[0]?.namespace);
    assert.ok(pod !== undefined);
    return { built: buildProxyImage(compile(view, pod.node)), own: pod.addresses[0] ?? parseIp('::') };
  };
  const { built, own } = build('a');
  assert.equal(built.needed, true);
  assert.deepEqual(
    built.secrets.map(({ role, secret: { name } }) => `${role} ${name}`),
    ['originate a', 'terminate a'],
  );
  assert.deepEqual(built.conflicts, []);
  const sent = parseAgentLine(JSON.stringify({ type: 'policy', revision: 1, image: built.image }));
  assert.ok(sent.type === 'policy');
  const judge = candidates(sent.image, {
    client: own,
    server: parseIp('203.0.113.1'),
    port: 443,
    identity: identityNumber(2),
    pattern: identityNumber(0),
  });
  const asked = judge.tls(named('x'));
  assert.ok(asked.kind === 'use' && asked.terminate?.name === 'a' && asked.originate?.trustedCA === 'ca.crt');
  assert.match(build('a', 'b').built.conflicts.join(), /egress\[0\] and .*egress\[1\]/);
});

test('the example is enforced as it is written', () => {
  const file = new URL('../../../examples/tls/origination.yaml', import.meta.url);
  const result = parseCiliumPolicy('CiliumNetworkPolicy', parse(readFileSync(file, 'utf8')));
  assert.ok(result.ok);
  const [policy] = result.policies;
  assert.equal(policy?.limits, undefined);
  assert.deepEqual(
    policy?.rules.flatMap(({ tls }) => tls?.terminate?.name ?? []),
    ['partner'],
  );
});

test('a Secret crosses the wire strictly', () => {
  const line = (more: object) =>
    JSON.stringify({
      type: 'secrets',
      secrets: [{ role: 'terminate', secret: secret('a'), certificate: 'c', ...more }],
    });
  assert.equal(parseAgentLine(line({ privateKey: 'very private' })).type, 'secrets');
  // What is wrong with it is said without what is in it.
  for (const bad of [{ privateKey: ['very private'] }, { 'very-new': 'very private' }, { role: 'very private' }])
    assert.throws(
      () => parseAgentLine(line(bad)),
      (error) => error instanceof Error && !error.message.includes('very private'),
    );
  assert.throws(
    () => parseAgentLine(line({ privateKey: 'very private' }).slice(0, -2)),
    (error) => error instanceof Error && !error.message.includes('very private'),
  );
});
