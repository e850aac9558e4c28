import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { installDefinitions } from '../../src/api/definitions.ts';
import { kinds } from '../../src/api/kinds.ts';
import { casePath } from '../support/shared.ts';
import { TestApi } from './harness.ts';
import { findKubectls, Kubectl } from './kubectl.ts';

const everything = `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  affinity: {podAntiAffinity: {}}
  volumes: [{name: v, emptyDir: {}}]
  containers:
  - name: c
    image: nginx
    ports: [{containerPort: 80, name: http}]
    volumeMounts: [{name: v, mountPath: /v}]
    env: [{name: A, value: "1"}, {name: B, value: "2"}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      affinity: {podAntiAffinity: {}}
      volumes: [{name: v, emptyDir: {}}]
      containers: [{name: c, image: nginx}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http, protocol: TCP}], ipFamilyPolicy: PreferDualStack}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets: [{addresses: [{ip: 10.244.1.5}], ports: [{port: 80, protocol: TCP}]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5], conditions: {ready: true}}]
ports: [{name: "", port: 80, protocol: TCP}]
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: n1, namespace: kube-node-lease}
spec: {holderIdentity: n1, leaseDurationSeconds: 40}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
data: {a: Yg==}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{port: 80, endPort: 90, protocol: TCP}, {port: http, protocol: UDP}]
---
apiVersion: v1
kind: Event
metadata: {name: web.1, namespace: shop}
involvedObject: {kind: Pod, name: web, namespace: shop}
reason: Started
message: started it
type: Normal
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wd]}
  conversion: {strategy: None}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, minimum: 1}}}
`;

const widget = `apiVersion: example.com/v1
kind: Widget
metadata: {name: w, namespace: shop}
spec: {size: 3}
`;

const binaries = findKubectls();

test('there is a kubectl, and the oldest one', (t) => {
  assert.ok(binaries.length > 0, 'kubectl is missing: sudo make setup installs it');
  if (binaries.length === 1)
    t.diagnostic(`only ${binaries[0]}: kubernetes-client could not be downloaded to test with`);
});

const described: readonly (readonly [string, readonly RegExp[]])[] = [
  ['namespace/shop', [/Status:\s+Active/, /team=a/]],
  ['serviceaccount/web -n shop', [/Name:\s+web/]],
  ['node/n1', [/PodCIDRs:\s+10.244.1.0\/24,fd00:10:244:1::\/64/]],
  ['pod/web -n shop', [/Status:\s+Pending/, /Port:\s+80\/TCP/, /Pulled\s.*an image/]],
  ['deployment/web -n shop', [/2 desired/, /25% max unavailable, 25% max surge/]],
  ['service/web -n shop', [/IP Families:\s+IPv4,IPv6/, /Endpoints:\s+10.244.1.5:80/]],
  ['endpoints/web -n shop', [/Addresses:\s+10.244.1.5/]],
  ['endpointslice/web-1 -n shop', [/Addresses:\s+10.244.1.5/]],
  ['lease/n1 -n kube-node-lease', [/Holder Identity:\s+n1/]],
  ['configmap/settings -n shop', [/a:\n----\nb/]],
  ['secret/key -n shop', [/Type:\s+Opaque/, /a:\s+1 bytes/]],
  ['networkpolicy/web -n shop', [/CIDR: 10.0.0.0\/8/, /To Port: http\/UDP/, /Policy Types: Ingress/]],
  ['crd/widgets.example.com', [/Kind:\s+Widget/]],
  ['widget/w -n shop', [/Size:\s+3/]],
];

const tables: readonly (readonly [string, RegExp])[] = [
  ['pods -n shop', /^NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\nweb\s+0\/1\s+Pending\s+0\s+\d+s\n$/],
  ['po -n shop -o wide', /\sIP\s+NODE\s+NOMINATED NODE\s+READINESS GATES\nweb\s/],
  ['po -n shop --show-labels', /\sLABELS\nweb\s.*\sapp=web\n/],
  ['deploy -n shop', /^NAME\s+READY\s+UP-TO-DATE\s+AVAILABLE\s+AGE\nweb\s+0\/2\s+0\s+0\s/],
  [
    'svc -n shop',
    /^NAME\s+TYPE\s+CLUSTER-IP\s+EXTERNAL-IP\s+PORT\(S\)\s+AGE\nweb\s+ClusterIP\s+10\.96\.[\d.]+,fd00:\S+\s+<none>\s+80\/TCP\s/,
  ],
  ['netpol -n shop', /^NAME\s+POD-SELECTOR\s+AGE\nweb\s+app=web\s/],
  ['nodes', /^NAME\s+STATUS\s+ROLES\s+AGE\s+VERSION\nn1\s+Unknown\s+<none>\s/],
  ['ns shop', /\nshop\s+Active\s/],
  ['endpointslices -n shop', /\nweb-1\s+IPv4\s+80\s+10.244.1.5\s/],
  ['wd -n shop', /^NAME\s+SIZE\nw\s+3\n$/],
  ['all -n shop', /pod\/web.*service\/web.*deployment.apps\/web/s],
  ['pods -A --field-selector status.phase=Pending -l app=web', /\nshop\s+web\s/],
  ['pod web -n shop -o jsonpath={.spec.serviceAccountName}', /^web$/],
  ['events -n shop', /Started\s+pod\/web\s+started it/],
];

/** What kubectl says of a second apply of lists that it does not know how to merge, changed or not. */
const always = /^(endpoints|endpointslice|networkpolicy)/;

for (const binary of binaries)
  test(`kubectl ${binary.includes('build/') ? 'of Debian 12' : 'of the system'}`, async (t) => {
    const api = await TestApi.start(t);
    const kubectl = new Kubectl(binary, api);
    const file = (name: string, text: string) => {
      writeFileSync(join(api.directory, name), text);
      return join(api.directory, name);
    };
    const manifest = file('all.yaml', everything);
    const own = file('widget.yaml', widget);

    await t.test('applies every kind, and the second time nothing is to be done', async () => {
      const first = await kubectl.run('apply', '-f', manifest);
      assert.deepEqual(
        first
          .trim()
          .split('\n')
          .filter((line) => !line.endsWith(' created')),
        [],
      );
      await kubectl.run('wait', '--for=condition=Established', 'crd/widgets.example.com', '--timeout=10s');
      assert.equal(await kubectl.run('apply', '-f', own), 'widget.example.com/w created\n');
      const { resourceVersion } = await api.client.list(kinds.Pod);
      const second = await kubectl.run('apply', '-f', manifest, '-f', own);
      assert.deepEqual(
        second
          .trim()
          .split('\n')
          .filter((line) => !line.endsWith(' unchanged') && !always.test(line)),
        [],
      );
      assert.equal((await api.client.list(kinds.Pod)).resourceVersion, resourceVersion);
    });

    await t.test('prints tables and descriptions', async () => {
      const { uid } = (await api.client.get(kinds.Pod, { namespace: 'shop', name: 'web' })).metadata;
      await api.client.create(kinds.Event, {
        apiVersion: 'v1',
        kind: 'Event',
        metadata: { name: 'web.2', namespace: 'shop' },
        involvedObject: { kind: 'Pod', name: 'web', namespace: 'shop', uid },
        reason: 'Pulled',
        message: 'an image',
        type: 'Normal',
      });
      for (const [what, expected] of tables) assert.match(await kubectl.run('get', ...what.split(' ')), expected, what);
      for (const [what, lines] of described) {
        const text = await kubectl.run('describe', ...what.split(' '));
        for (const line of lines) assert.match(text, line, what);
      }
    });

    await t.test('changes what a manifest changes, and nothing else', async () => {
      const changed = everything
        .replace('env: [{name: A, value: "1"}, {name: B, value: "2"}]', 'env: [{name: B, value: "2"}]')
        .replace('replicas: 2', 'replicas: 3')
        .replaceAll('image: nginx', 'image: nginx:2');
      const deployment = changed
        .split('---\n')
        .filter((part) => part.includes('kind: Deployment'))
        .join('');
      assert.equal(
        await kubectl.run('apply', '-f', file('changed.yaml', deployment)),
        'deployment.apps/web configured\n',
      );
      const { spec, metadata } = await api.client.get(kinds.Deployment, { namespace: 'shop', name: 'web' });
      assert.deepEqual(
        [spec.replicas, spec.template.spec.containers[0]?.image, metadata.generation],
        [3, 'nginx:2', 2],
      );
      await kubectl.run('scale', '-n', 'shop', 'deploy/web', '--replicas=5');
      await kubectl.run('label', '-n', 'shop', 'pod/web', 'tier=front');
      await kubectl.run('annotate', '-n', 'shop', 'pod/web', 'note=here');
      await kubectl.run('patch', '-n', 'shop', 'svc/web', '-p', '{"spec":{"ports":[{"port":80,"targetPort":8080}]}}');
      await kubectl.run('set', 'image', '-n', 'shop', 'deploy/web', 'c=nginx:3');
      const after = await api.client.get(kinds.Deployment, { namespace: 'shop', name: 'web' });
      assert.deepEqual([after.spec.replicas, after.spec.template.spec.containers[0]?.image], [5, 'nginx:3']);
      assert.equal(
        (await api.client.get(kinds.Service, { namespace: 'shop', name: 'web' })).spec?.ports?.[0]?.targetPort,
        8080,
      );
      await kubectl.run('apply', '--server-side', '--force-conflicts', '-f', own);
      await kubectl.run('apply', '--dry-run=server', '-f', manifest);
      await kubectl.run('explain', 'networkpolicy.spec.ingress.ports');
      await installDefinitions(api.client);
      // Of own kinds there is no other documentation where kubectl is.
      const explained = await kubectl.run('explain', 'clustersettings.spec.breachRadius');
      assert.match(explained.replace(/\s+/g, ' '), /Whose keys a stolen key endangers: one pair of pods/);
      const whole = (await kubectl.run('explain', 'revocations')).replace(/\s+/g, ' ');
      assert.match(whole, /Takes back the proof of a pod/);
      assert.match(whole, /What is taken back, and why/);
    });

    await t.test('makes objects by its generators, which newer ones write in protobuf', async () => {
      const made = { namespace: 'made' };
      await kubectl.run('create', 'namespace', 'made');
      await kubectl.run('run', 'pod', '--image=nginx', '-n', 'made');
      await kubectl.run('create', 'configmap', 'cm', '--from-literal=a=b', '--from-literal=c=', '-n', 'made');
      assert.deepEqual((await api.client.get(kinds.ConfigMap, { ...made, name: 'cm' })).data?.a, 'b');
      await kubectl.run('create', 'secret', 'generic', 'key', '--from-literal=a=b', '-n', 'made');
      assert.deepEqual((await api.client.get(kinds.Secret, { ...made, name: 'key' })).data, { a: 'Yg==' });
      await kubectl.run('create', 'serviceaccount', 'robot', '-n', 'made');
      await kubectl.run('create', 'deployment', 'web', '--image=nginx:1', '--port=80', '--replicas=2', '-n', 'made');
      const { spec } = await api.client.get(kinds.Deployment, { ...made, name: 'web' });
      assert.deepEqual(
        [spec.replicas, spec.selector, spec.template.spec.containers[0]?.ports],
        [2, { matchLabels: { app: 'web' } }, [{ containerPort: 80, protocol: 'TCP' }]],
      );
      await kubectl.run('expose', 'deployment', 'web', '--port=8080', '--target-port=80', '-n', 'made');
      await kubectl.run('create', 'service', 'clusterip', 'plain', '--tcp=5000:http', '-n', 'made');
      const ports = async (name: string) =>
        (await api.client.get(kinds.Service, { ...made, name })).spec?.ports?.map(({ port, targetPort }) => [
          port,
          targetPort,
        ]);
      assert.deepEqual([await ports('web'), await ports('plain')], [[[8080, 80]], [[5000, 'http']]]);
    });

    await t.test('is told what is wrong with a manifest', async () => {
      const policy = everything.split('---\n').find((part) => part.includes('kind: NetworkPolicy')) ?? '';
      const broken = async (from: string, to: string) =>
        kubectl.try('apply', '-f', file('broken.yaml', policy.replace(from, to)));
      const typo = await broken('podSelector: {matchLabels', 'podSelectr: {matchLabels');
      assert.deepEqual([typo.code, /unknown field ("spec\.)?"?podSelectr"/.test(typo.err)], [1, true], typo.err);
      const range = await broken('endPort: 90', 'endPort: 79');
      assert.equal(range.code, 1);
      assert.match(
        range.err,
        /spec.ingress\[0\].ports\[0\].endPort: Invalid value: 79: must be greater than or equal to `port`/,
      );
      const wrong = await kubectl.try('apply', '-f', file('broken.yaml', widget.replace('size: 3', 'size: 0')));
      assert.match(wrong.err, /spec.size: Invalid value: 0: should be greater than or equal to 1/);
      const nothing = await kubectl.try('get', 'pod', 'none', '-n', 'shop');
      assert.deepEqual([nothing.code, nothing.err.trim()], [1, 'Error from server (NotFound): pods "none" not found']);
    });

    await t.test('applies the upstream shop', async () => {
      const paths = [
        '-f',
        casePath('online-boutique', 'kubernetes-manifests.yaml'),
        '-f',
        casePath('online-boutique', 'network-policies'),
      ];
      await kubectl.run('apply', ...paths);
      const again = await kubectl.run('apply', ...paths);
      assert.deepEqual(
        again
          .trim()
          .split('\n')
          .filter((line) => !line.endsWith(' unchanged')),
        [],
      );
    });

    await t.test('deletes, and waits until it is done', async () => {
      await kubectl.run('delete', '-f', own);
      const { code, out } = await kubectl.try('delete', '-f', manifest);
      // Deleting the namespace took most of the rest with it.
      assert.match(out, /^namespace "shop" deleted/);
      assert.ok(code === 0 || code === 1);
      assert.deepEqual((await api.client.list(kinds.Namespace)).entries.map(({ key }) => key).includes('shop'), false);
      assert.equal((await kubectl.try('get', 'widgets', '-A')).code, 1);
    });
  });
