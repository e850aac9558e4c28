import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { parseNetworkPolicy } from '../../src/policy/network-policy/parse.ts';
import { myelin } from '../support/cli.ts';

const directory = mkdtempSync(join(tmpdir(), 'myelin-suggest-'));
after(() => rmSync(directory, { recursive: true }));
const put = (name: string, text: string): string => {
  const file = join(directory, name);
  writeFileSync(file, text);
  return file;
};

const workload = (name: string) => `apiVersion: apps/v1
kind: Deployment
metadata: {name: ${name}, namespace: shop}
spec: {selector: {matchLabels: {app: ${name}}}, template: {metadata: {labels: {app: ${name}}}, spec: {containers: []}}}
---
`;
const manifests = put('shop.yaml', workload('front') + workload('cart'));
const pod = (name: string, address: string, port: number) => ({
  ...{ kind: 'pod', namespace: 'shop', name, serviceAccount: 'default', node: 'n', address, port, identity: 300 },
});
const flow = (own: object) =>
  JSON.stringify({
    ...{ kind: 'new', time: Date.UTC(2026, 0, 1), node: 'n', direction: 'ingress', protocol: 'TCP' },
    source: pod('front-6f7d8c9b5-x2x4z', '10.244.1.1', 40000),
    destination: pod('cart-7d7d7d7d7-abcde', '10.244.1.2', 6379),
    ...{ verdict: 'allow', packets: 1, bytes: 60, ...own },
  });
const flows = put('flows.ndjson', [flow({}), flow({}), flow({ protocol: 'ICMP' }), ''].join('\n'));

test('policies that can be applied, each rule under what it is for; what is left out is said', async () => {
  const { code, stdout, stderr } = await myelin('policy', 'suggest', '--flows', flows, '-f', manifests);
  assert.equal(code, 0, stderr);
  const documents = parseAllDocuments(stdout).map((document) => document.toJS() as unknown);
  assert.equal(documents.length, 2);
  for (const object of documents) assert.ok(parseNetworkPolicy(object).ok, JSON.stringify(object));
  assert.match(
    stdout,
    /ingress:\n +# 2 × shop\/front-6f7d8c9b5-x2x4z → shop\/cart-7d7d7d7d7-abcde TCP 6379\n +- from:\n +- podSelector:\n +matchLabels:\n +app: front\n +ports:\n +- protocol: TCP\n +port: 6379\n/,
  );
  assert.match(stdout, /# What was seen from 2026-01-01T00:00:00Z to /);
  assert.match(stderr, /left out: .* ICMP: a NetworkPolicy has no word for ICMP/);
});

test('as JSON, of one direction', async () => {
  const args = ['--flows', flows, '-f', manifests, '--direction', 'egress', '-o', 'json'];
  const { stdout } = await myelin('policy', 'suggest', ...args);
  const { items } = JSON.parse(stdout) as { items: { metadata: unknown; spec: object }[] };
  assert.deepEqual(
    items.map(({ metadata, spec }) => [metadata, Object.keys(spec)]),
    [[{ name: 'front', namespace: 'shop' }, ['podSelector', 'policyTypes', 'egress']]],
  );
});

test('a line that is no flow is named', async () => {
  const file = put('wrong.ndjson', `${flow({})}\n{"no": "flow"}\n`);
  const { code, stderr } = await myelin('policy', 'suggest', '--flows', file, '-f', manifests);
  assert.equal(code, 1);
  assert.match(stderr, /wrong\.ndjson:2: not a flow/);
});

test('a difference of nothing is a question nobody asked', async () => {
  const { code, stderr } = await myelin('policy', 'diff', '--flows', flows);
  assert.equal(code, 1);
  assert.match(stderr, /say what would change/);
});
