import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerWhy, type WhyContext } from '../../src/agent/why.ts';
import type { WhyQuestion } from '../../src/agent/wire.ts';
import { parseIp } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import { explain } from '../../src/policy/explain.ts';
import { formatIssues } from '../../src/policy/issues.ts';
import { parseAuthorizationPolicy } from '../../src/policy/istio/authorization.ts';
import { cilium } from '../support/cilium.ts';
import { clusterWith, policy } from '../support/cluster.ts';

const front = parseIp('10.96.0.20');
const cart = { address: parseIp('10.244.1.2'), port: 8080 };
const scan = { address: parseIp('10.244.2.2'), port: 9090 };
const view = clusterWith([
  policy('cart', {
    podSelector: { matchLabels: { app: 'cart' } },
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'front' } } }], ports: [{ port: 8080 }] }],
  }),
]);

function why(
  source: string,
  port: number,
  backends: WhyContext['serviceAt'],
  destination: string = front,
  node = 'node-1',
) {
  const context: WhyContext = {
    view,
    node,
    image: undefined,
    explain: (seen, flow) => explain(seen, flow).text.split('\n').slice(1),
    ...(backends === undefined ? {} : { serviceAt: backends }),
  };
  return answerWhy(context, { source, destination, protocol: 'TCP', port });
}

test('a Service’s address is answered for by its backends, at the port that they are reached at', () => {
  const at: WhyContext['serviceAt'] = ({ port }) =>
    port === 80 ? { name: 'shop/cart:80', backends: [cart] } : undefined;
  const allowed = why('shop/front-1', 80, at);
  assert.equal(allowed.verdict, 'allow');
  assert.equal(allowed.destination, front);
  assert.equal(allowed.explanation[0], 'service shop/cart:80 sends it to 10.244.1.2:8080');
  assert.match(allowed.sides[1]?.by ?? '', /NetworkPolicy shop\/cart ingress\[0\]/);
  assert.equal(why('ops/scan', 80, at).verdict, 'deny');
  const nobody = why('shop/front-1', 81, at);
  assert.equal(nobody.verdict, 'deny');
  assert.match(nobody.sides[0]?.by ?? '', /NO_SERVICE_BACKEND/);
});

test('of backends that differ, one that is denied is shown, and how many are', () => {
  const answer = why('shop/front-1', 80, () => ({ name: 'x/y:80', backends: [scan, cart, { ...cart, port: 1 }] }));
  assert.equal(answer.verdict, 'deny');
  assert.equal(
    answer.explanation[0],
    'service x/y:80 sends it to one of 3 backends, of which 1 are denied; this is 10.244.1.2:1',
  );
  const none = why('shop/front-1', 80, () => ({ name: 'x/y:80', backends: [] }));
  assert.match(none.sides[0]?.by ?? '', /NO_SERVICE_BACKEND/);
});

test('the host is the other end’s node, whichever node is asked', () => {
  for (const node of ['node-1', 'node-2']) {
    const answer = why('host', 80, undefined, 'shop/cart', node);
    assert.equal(answer.verdict, 'allow', `asked on ${node}: ${answer.explanation.join('; ')}`);
  }
});

test('a request is read as the datapath reads it, and the rule that decides about it is named', () => {
  const [readOnly, ...others] = [
    {
      metadata: { name: 'read', namespace: 'shop' },
      spec: {
        selector: { matchLabels: { app: 'cart' } },
        rules: [{ to: [{ operation: { methods: ['GET'], paths: ['/items/*'] } }] }],
      },
    },
    {
      metadata: { name: 'admin', namespace: 'shop' },
      spec: {
        selector: { matchLabels: { app: 'cart' } },
        action: 'DENY',
        rules: [
          {
            to: [{ operation: { paths: ['/items/admin*'] } }],
            when: [{ key: 'request.headers[x-role]', notValues: ['root'] }],
          },
        ],
      },
    },
  ].map((object) => {
    const parsed = parseAuthorizationPolicy({
      apiVersion: 'security.istio.io/v1',
      kind: 'AuthorizationPolicy',
      ...object,
    });
    return parsed.ok ? parsed.policy : assert.fail(formatIssues(parsed.issues));
  });
  assert.ok(readOnly !== undefined);
  const seen = clusterWith([readOnly, ...others]);
  const image = compile(seen, 'node-1');
  const context: WhyContext = {
    view: seen,
    node: 'node-1',
    image,
    explain: (own, flow) => explain(own, flow).text.split('\n').slice(1),
  };
  const ask = (http?: WhyQuestion['http']) => {
    const question = { source: 'shop/front-1', destination: 'shop/cart', protocol: 'TCP', port: 8080 } as const;
    const { verdict, sides, explanation } = answerWhy(context, {
      ...question,
      ...(http === undefined ? {} : { http }),
    });
    return { verdict, by: sides[1]?.by ?? '', datapath: sides[1]?.datapath, explanation: explanation.join('\n') };
  };
  const get = (target: string, headers: [string, string][] = []) =>
    ask({ method: 'GET', target, host: 'cart', headers });
  const allowed = get('/x/..//items/%31');
  assert.deepEqual(
    [allowed.verdict, allowed.by, allowed.datapath],
    ['allow', 'AuthorizationPolicy shop/read rules[0]', 'agrees'],
  );
  assert.match(allowed.explanation, /is read as \/items\/1/);
  assert.equal(get('/items/admin').by, 'AuthorizationPolicy shop/admin rules[0]');
  assert.equal(get('/items/%61dmin/a').datapath, 'agrees');
  assert.equal(get('/items/admin', [['X-Role', 'root']]).verdict, 'allow');
  assert.match(ask({ method: 'POST', target: '/items/1', headers: [] }).by, /no rule allows it/);
  assert.match(get('/items/%2e%2e/%2e%2e/x').by, /^HTTP_MALFORMED: a path above the root/);
  assert.match(ask().explanation, /judged one by one/);
  assert.equal(ask().verdict, 'deny');
});

test('TLS is judged by the server that it names, and the proxy says the same', () => {
  const [named] = cilium({
    endpointSelector: { matchLabels: { app: 'front' } },
    egress: [
      {
        toEndpoints: [{ matchLabels: { app: 'cart' } }],
        toPorts: [{ ports: [{ port: '443', protocol: 'TCP' }], serverNames: ['*.example.com'] }],
      },
    ],
  });
  assert.ok(named !== undefined);
  const seen = clusterWith([named]);
  // Egress is compiled where the client is.
  const node = seen.pods.get('shop/front-1')?.node ?? assert.fail('there is the pod');
  const context: WhyContext = {
    view: seen,
    node,
    image: compile(seen, node),
    explain: (own, flow) => explain(own, flow).text.split('\n').slice(1),
  };
  const ask = (tls?: WhyQuestion['tls']) => {
    const question = { source: 'shop/front-1', destination: 'shop/cart', protocol: 'TCP', port: 443 } as const;
    const { verdict, sides, explanation } = answerWhy(context, { ...question, ...(tls === undefined ? {} : { tls }) });
    return { verdict, datapath: sides[0]?.datapath, by: sides[0]?.by, explanation: explanation.join('\n') };
  };
  const { explanation, ...allowed } = ask({ serverName: 'a.example.com' });
  assert.deepEqual(allowed, { verdict: 'allow', datapath: 'agrees', by: 'CiliumNetworkPolicy shop/asks egress[0]' });
  assert.match(explanation, /the node’s proxy, which judges what is said on it$/m);
  for (const tls of [{ serverName: 'example.org' }, {}, undefined])
    assert.deepEqual([ask(tls).verdict, ask(tls).datapath], ['deny', 'agrees'], JSON.stringify(tls));
});
