import assert from 'node:assert/strict';
import { policyKinds } from '../../src/policy/kinds.ts';
import type { Policy } from '../../src/policy/rule.ts';

/** @param spec Of a CiliumNetworkPolicy `shop/asks`. */
export function cilium(spec: object, annotations: Readonly<Record<string, string>> = {}): readonly Policy[] {
  const kind = policyKinds.find((one) => one.kind === 'CiliumNetworkPolicy') ?? assert.fail('there is the kind');
  const parsed = kind.parse({
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumNetworkPolicy',
    metadata: { name: 'asks', namespace: 'shop', annotations },
    spec,
  });
  return parsed.ok ? parsed.policies : assert.fail(JSON.stringify(parsed));
}
