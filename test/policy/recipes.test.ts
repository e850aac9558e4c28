import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { parseIp } from '../../src/model/address.ts';
import { decide } from '../../src/policy/decide.ts';
import { parseNetworkPolicy } from '../../src/policy/network-policy/parse.ts';
import type { Policy } from '../../src/policy/rule.ts';
import { clusterWith, pod } from '../support/cluster.ts';
import { listCases, readCase } from '../support/shared.ts';

const pods = [
  pod('default/web', { app: 'web' }, 'node-1', ['10.244.1.1']),
  pod('default/other', { app: 'other' }, 'node-1', ['10.244.1.2']),
  pod('default/foo', { app: 'foo' }, 'node-1', ['10.244.1.3']),
  pod('default/api', { app: 'bookstore', role: 'api' }, 'node-1', ['10.244.1.4']),
  pod('default/search', { app: 'bookstore', role: 'search' }, 'node-1', ['10.244.1.5']),
  pod('default/db', { app: 'bookstore', role: 'db' }, 'node-1', ['10.244.1.6']),
  pod('default/inventory', { app: 'inventory', role: 'web' }, 'node-1', ['10.244.1.7']),
  pod('default/apiserver', { app: 'apiserver' }, 'node-1', ['10.244.1.8']),
  pod('default/monitor', { app: 'm', role: 'monitoring' }, 'node-1', ['10.244.1.9']),
  pod('prod/client', { app: 'client' }, 'node-2', ['10.244.2.1']),
  pod('ops/monitor', { type: 'monitoring' }, 'node-2', ['10.244.2.2']),
  pod('ops/plain', {}, 'node-2', ['10.244.2.3']),
  pod('kube-system/dns', { 'k8s-app': 'kube-dns' }, 'node-2', ['10.244.2.4']),
];
const named = (name: string, labels: object = {}) =>
  [name, { 'kubernetes.io/metadata.name': name, ...labels }] as const;
const changes = {
  pods: new Map(pods.map((own) => [own.uid, own])),
  namespaces: new Map([
    named('default'),
    named('prod', { purpose: 'production' }),
    named('ops', { team: 'operations' }),
    named('kube-system'),
  ]),
};
const world = '93.184.216.34';

/** The promise of the file's name: who must reach whom (+), and who must not (-). TCP 80 where nothing is said. */
const promises: Readonly<Record<string, readonly string[]>> = {
  '01-deny-all-traffic-to-an-application.yaml': [
    '- default/other default/web',
    '- ops/plain default/web',
    `- ${world} default/web`,
    '+ default/web default/other',
    '+ default/other default/foo',
  ],
  '02-limit-traffic-to-an-application.yaml': [
    '+ default/search default/api',
    '+ default/db default/api',
    '- default/web default/api',
    '- ops/plain default/api',
    '+ default/web default/search',
  ],
  '02a-allow-all-traffic-to-an-application.yaml': [
    '+ default/other default/web',
    '+ ops/plain default/web',
    `+ ${world} default/web`,
  ],
  '03-deny-all-non-whitelisted-traffic-in-the-namespace.yaml': [
    '- default/other default/web',
    '- ops/plain default/foo',
    '+ default/other ops/plain',
  ],
  '04-deny-traffic-from-other-namespaces.yaml': [
    '+ default/other default/web',
    '- ops/plain default/web',
    `- ${world} default/web`,
  ],
  '05-allow-traffic-from-all-namespaces.yaml': [
    '+ default/other default/web',
    '+ ops/plain default/web',
    `- ${world} default/web`,
  ],
  '06-allow-traffic-from-a-namespace.yaml': [
    '+ prod/client default/web',
    '- ops/plain default/web',
    '- default/other default/web',
  ],
  '07-allow-traffic-from-some-pods-in-another-namespace.yaml': [
    '+ ops/monitor default/web',
    '- ops/plain default/web',
    '- default/other default/web',
  ],
  '08-allow-external-traffic.yaml': [`+ ${world} default/web`, '+ ops/plain default/web'],
  '09-allow-traffic-only-to-a-port.yaml': [
    '+ default/monitor default/apiserver TCP 5000',
    '- default/monitor default/apiserver',
    '- default/monitor default/apiserver UDP 5000',
    '- default/other default/apiserver TCP 5000',
  ],
  '10-allowing-traffic-with-multiple-selectors.yaml': [
    '+ default/search default/db',
    '+ default/api default/db',
    '+ default/inventory default/db',
    '- default/web default/db',
  ],
  '11-deny-egress-traffic-from-an-application.yaml': [
    '- default/foo default/web',
    `- default/foo ${world}`,
    '+ default/foo kube-system/dns UDP 53',
    '+ default/foo kube-system/dns TCP 53',
    '- default/foo kube-system/dns TCP 80',
    '+ default/web default/foo',
  ],
  '12-deny-all-non-whitelisted-traffic-from-the-namespace.yaml': [
    '- default/web default/other',
    `- default/foo ${world}`,
    '+ ops/plain default/web',
  ],
  '14-deny-external-egress-traffic.yaml': [
    `- default/foo ${world}`,
    '+ default/foo kube-system/dns UDP 53',
    `+ default/web ${world}`,
  ],
};

test('there is a promise for every recipe', () => {
  assert.deepEqual(listCases('recipes'), Object.keys(promises));
});

for (const [file, lines] of Object.entries(promises))
  test(file, () => {
    const view = clusterWith(policiesOf(file), changes);
    for (const line of lines) {
      const [sign, from = '', to = '', protocol = 'TCP', port = '80'] = line.split(' ');
      const flow = {
        source: end(from),
        destination: end(to),
        protocol: protocol === 'UDP' ? 'UDP' : 'TCP',
        port: Number(port),
      } as const;
      assert.equal(decide(view, flow).verdict, sign === '+' ? 'allow' : 'deny', line);
      assert.equal(decide(clusterWith([], changes), flow).verdict, 'allow', `before the recipe: ${line}`);
    }
  });

function end(name: string): { pod: string } | { address: ReturnType<typeof parseIp> } {
  return name.includes('/') ? { pod: name } : { address: parseIp(name) };
}

/** Of a file with several versions of one policy the last holds, as after `kubectl apply`. */
function policiesOf(file: string): Policy[] {
  const byName = new Map<string, Policy>();
  for (const document of parseAllDocuments(readCase('recipes', file))) {
    const result = parseNetworkPolicy(document.toJS());
    assert.ok(result.ok, JSON.stringify(result));
    byName.set(result.policy.name, result.policy);
  }
  return [...byName.values()];
}
