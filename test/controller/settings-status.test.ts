import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Entry } from '../../src/api/client/types.ts';
import { readClusterSettings } from '../../src/api/cluster-settings.ts';
import { type ClusterSettings, type Live, ownKinds } from '../../src/api/kinds.ts';
import { settingsConditions } from '../../src/controller/settings-status.ts';

function entry(spec: Record<string, unknown>, unknown: string[] = []): Entry<ClusterSettings> {
  const meta = { name: 'default', uid: 'u', resourceVersion: '1' };
  const raw = { apiVersion: 'myelin.dev/v1alpha1', kind: 'ClusterSettings', metadata: meta, spec };
  const parsed = ownKinds.ClusterSettings.schema.safeParse(raw);
  const object: Live<ClusterSettings> | undefined = parsed.success ? { ...parsed.data, metadata: meta } : undefined;
  const fields = [...unknown, ...(parsed.error?.issues.map(({ path }) => path.join('.')) ?? [])];
  const issues = fields.map((field) => ({ field, reason: 'FieldValueInvalid', message: `what is ${field}?` }) as const);
  return { key: 'default', raw, object, issues };
}

test('what is said holds, what is not said is left to the agents', () => {
  const spec = { defaultVerdict: 'allow', breachRadius: 'node', rekeySeconds: 60 } as const;
  assert.deepEqual(readClusterSettings(entry(spec)), { ...spec, problems: [] });
  assert.deepEqual(readClusterSettings(undefined), { problems: [] });
  assert.deepEqual(
    settingsConditions(entry(spec)).map(({ status }) => status),
    ['True', 'True'],
  );
});

test('what is not understood is read as strictly as can be, and the status says so', () => {
  for (const odd of [
    entry({ defaultVerdict: 'allow', breachRadius: 'zone', rekeySeconds: 60 }),
    entry({ defaultVerdict: 'perhaps', rekeySeconds: 60 }),
    entry({ defaultVerdict: 'allow', rekeySeconds: 60, audit: true }, ['spec.audit']),
  ]) {
    const { problems, ...read } = readClusterSettings(odd);
    assert.deepEqual(read, { defaultVerdict: 'deny', breachRadius: 'pod', rekeySeconds: 60 });
    assert.ok(problems.length > 0);
    assert.deepEqual(
      settingsConditions(odd).map(({ status }) => status),
      ['False', 'False'],
    );
  }
  const { rekeySeconds } = readClusterSettings(entry({ rekeySeconds: 1 }));
  assert.equal(rekeySeconds, 10, 'a number out of range is the nearest in range');
});
