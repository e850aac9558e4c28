import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { myelin } from '../support/cli.ts';

const good = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  endpointSelector: {}
  ingress:
  - fromEndpoints: [{}]
`;
const cases: readonly [name: string, text: string, code: number, lines: readonly RegExp[]][] = [
  ['good', good, 0, []],
  [
    'unknown field',
    `${good}    toPort: []\n`,
    1,
    [/:8:5 +error +CiliumNetworkPolicy shop\/p +spec.ingress\[0\].toPort +is not a field/],
  ],
  [
    'bad value',
    `${good}  - fromEntities:\n    - world\n    - everyone\n`,
    1,
    [/:10:7 +error .* expected one of all, world/],
  ],
  ['repeated', `${good}  - fromEndpoints: [{matchLabels: {a: b}}]\n`, 2, [/:8:5 +warning .* makes no difference/]],
  ['not YAML', 'a: [', 1, [/:1:\d+ +error/]],
  [
    'both',
    `${good}    toPort: []\n---\n${good}  - {toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {kafka: [{topic: a}]}}]}\n`,
    1,
    [/:8:5 +error/, /:17:\d+ +warning .*kafka/],
  ],
];

test('findings name file, line and field; the exit code says how bad they are', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-check-'));
  try {
    for (const [name, text, code, lines] of cases) {
      const file = join(directory, 'policy.yaml');
      writeFileSync(file, text);
      const result = await myelin('policy', 'check', '-f', file);
      assert.equal(result.code, code, `${name}: ${result.stdout}${result.stderr}`);
      const rows = result.stdout.split('\n').filter((line) => line.includes('policy.yaml:'));
      assert.equal(rows.length, lines.length, `${name}: ${result.stdout}`);
      for (const [index, pattern] of lines.entries()) assert.match(rows[index] ?? '', pattern, name);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('for programs it is JSON', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-check-'));
  try {
    const file = join(directory, 'list.json');
    writeFileSync(file, JSON.stringify([{ endpointSelector: {}, ingress: [{ fromEndpoints: {} }] }], null, 2));
    const result = await myelin('policy', 'check', '-f', file, '-o', 'json');
    assert.equal(result.code, 1);
    assert.deepEqual(JSON.parse(result.stdout), {
      policies: 0,
      pods: 0,
      findings: [
        {
          ...{ file, line: 6, column: 26, severity: 'error', code: 'schema' },
          ...{ policy: 'CiliumRule list', field: '[0].ingress[0].fromEndpoints', message: 'expected a list' },
        },
      ],
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
