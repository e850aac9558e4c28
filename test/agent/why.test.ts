import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerWhy, type WhyContext } from '../../src/agent/why.ts';
import { parseIp } from '../../src/model/address.ts';
import { explain } from '../../src/policy/explain.ts';
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
