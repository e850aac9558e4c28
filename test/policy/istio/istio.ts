import assert from 'node:assert/strict';
import { parseIp } from '../../../src/model/address.ts';
import type { PodView } from '../../../src/model/endpoint.ts';
import { type Decision, decide, type FlowEnd, type PolicyFlow } from '../../../src/policy/decide.ts';
import type { ParseResult } from '../../../src/policy/issues.ts';
import { parseAuthorizationPolicy } from '../../../src/policy/istio/authorization.ts';
import { parsePeerAuthentication } from '../../../src/policy/istio/peer-authentication.ts';
import { settle } from '../../../src/policy/istio/settle.ts';
import type { Policy } from '../../../src/policy/rule.ts';
import { clusterWith, pod } from '../../support/cluster.ts';

/** The pods of these tests: `shop/cart` (app=cart, version=v1) is the destination, the others call it. UID = `namespace/name`. */
export const pods: readonly PodView[] = [
  pod('shop/cart', { app: 'cart', version: 'v1' }, 'node-1', ['10.244.1.2', 'fd00:10:244:1::2']),
  pod('shop/front', { app: 'front' }, 'node-2', ['10.244.2.1', 'fd00:10:244:2::1'], { serviceAccount: 'front' }),
  pod('shop/admin', { app: 'admin' }, 'node-1', ['10.244.1.3'], { serviceAccount: 'admin' }),
  pod('ops/front', { app: 'front' }, 'node-2', ['10.244.2.2'], { serviceAccount: 'front' }),
  pod('ops-test/scan', { app: 'scan' }, 'node-2', ['10.244.2.3'], { serviceAccount: 'scan' }),
];
const namespaces = new Map(['shop', 'ops', 'ops-test', 'istio-system'].map((name) => [name, {}]));

export function accepted(result: ParseResult): Policy {
  assert.ok(result.ok, JSON.stringify(result));
  return result.policy;
}

export function issuesOf(result: ParseResult): string[] {
  assert.ok(!result.ok, 'it was accepted');
  return result.issues.map(({ field, message }) => `${field}: ${message}`);
}

/** @param name `namespace/name` */
export function authorization(name: string, spec: object, metadata: object = {}): Policy {
  return accepted(parseAuthorizationPolicy({ metadata: { ...named(name), ...metadata }, spec }));
}

export function authentication(name: string, spec: object, created?: string): Policy {
  const metadata = { ...named(name), ...(created === undefined ? {} : { creationTimestamp: created }) };
  return accepted(parsePeerAuthentication({ metadata, spec }));
}

function named(text: string): { namespace: string; name: string } {
  const [namespace = '', name = ''] = text.split('/');
  return { namespace, name };
}

/** `shop/front`, an address, or `node-2`. */
function endOf(text: string): FlowEnd {
  if (text.startsWith('node-')) return { host: text };
  return text.includes('/') ? { pod: text } : { address: parseIp(text) };
}

export interface FlowOptions {
  readonly to?: string;
  readonly port?: number;
  readonly protocol?: PolicyFlow['protocol'];
  readonly family?: 4 | 6;
  readonly request?: PolicyFlow['request'];
}

/** What the policies say of a flow, by default over TCP to port 80 of shop/cart. */
export function decision(policies: readonly Policy[], from: string, options: FlowOptions = {}): Decision {
  const view = clusterWith(settle(policies), {
    pods: new Map(pods.map((own) => [own.uid, own])),
    namespaces,
  });
  return decide(view, {
    source: endOf(from),
    destination: endOf(options.to ?? 'shop/cart'),
    protocol: options.protocol ?? 'TCP',
    port: options.port ?? 80,
    ...(options.family === undefined ? {} : { family: options.family }),
    ...(options.request === undefined ? {} : { request: options.request }),
  });
}

export function verdict(policies: readonly Policy[], from: string, options: FlowOptions = {}): 'allow' | 'deny' {
  return decision(policies, from, options).verdict;
}
