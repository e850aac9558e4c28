import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { proxyModes } from '../../src/datapath/layouts.ts';
import { parseIp } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { parseCiliumPolicy } from '../../src/policy/cilium/parse.ts';
import { compile } from '../../src/policy/compile.ts';
import { parseAuthorizationPolicy } from '../../src/policy/istio/authorization.ts';
import type { Policy } from '../../src/policy/rule.ts';
import { clusterWith, pod } from '../support/cluster.ts';
import { frame, ip, tcp, udp } from '../support/packet.ts';
import { marks } from './cluster.ts';
import { install } from './image.ts';
import { frames, type Outcome, TestNode } from './node.ts';

/** Connections that only their requests can tell about: what the programs do until somebody reads them. */

const node = new TestNode();
after(() => node.close());

const address = parseIp('10.244.1.9');
const client = parseIp('203.0.113.9');
const pods = new Map([['shop/web', pod('shop/web', { app: 'web' }, 'node-1', [address])]]);
/** `CT_BY_REQUEST`, `CT_READ`, `CT_PROXIED`. */
const flags = { byRequest: 4, read: 8, proxied: 64 } as const;

function cilium(name: string, spec: object): readonly Policy[] {
  const parsed = parseCiliumPolicy('CiliumNetworkPolicy', {
    metadata: { name, namespace: 'shop' },
    spec: { endpointSelector: { matchLabels: { app: 'web' } }, ...spec },
  });
  return parsed.ok ? parsed.policies : assert.fail('the policy is one');
}

const on = (port: string, rules?: object) => ({
  toPorts: [{ ports: [{ port, protocol: 'TCP' }], ...(rules === undefined ? {} : { rules }) }],
});
const reads = cilium('reads', { ingress: [on('80', { http: [{ method: 'GET' }] })] });
const open = cilium('open', { ingress: [on('80')] });
const others = cilium('others', { ingress: [on('81')] });

let sourcePort = 40_000;

/** A connection of the client's to the pod, packet by packet. */
class Connection {
  readonly ports = { source: ++sourcePort, destination: 80 };
  readonly #pod;

  constructor(policies: readonly Policy[]) {
    this.#pod = install(node, compile(clusterWith([...policies], { pods }), 'node-1')).pod('shop/web');
  }

  receives(tcpFlags: string, payload = ''): Outcome {
    const packet = tcp({ ...this.ports, flags: tcpFlags, payload: new TextEncoder().encode(payload) });
    return this.#arrives(packet);
  }

  receivesUdp(): Outcome {
    return this.#arrives(udp(this.ports));
  }

  sends(tcpFlags: string, payload = ''): Outcome {
    const { source, destination } = this.ports;
    const packet = tcp({
      source: destination,
      destination: source,
      flags: tcpFlags,
      payload: new TextEncoder().encode(payload),
    });
    return node.send(this.#pod, frame(frames.from(this.#pod), ip({ source: address, destination: client }, packet)));
  }

  get endpoint(): number {
    return this.#pod.id;
  }

  get flags(): number {
    return this.#entry()[1].flags;
  }

  /** As http.bpf.c says it when the socket is one of those that are read. */
  isRead(): void {
    const [key, entry] = this.#entry();
    node.maps.connections.set(key, { ...entry, flags: entry.flags | flags.read });
  }

  #entry() {
    return (
      [...node.maps.connections.entries()].find(([key]) => key.remotePort === this.ports.source) ??
      assert.fail('there is such a connection')
    );
  }

  #arrives(packet: Parameters<typeof ip>[1]): Outcome {
    const bytes = frame(frames.to(this.#pod), ip({ source: client, destination: address }, packet));
    return node.receive(this.#pod, bytes, marks.worldAs(reservedIdentity.world));
  }
}

test('what its requests may be allowed on is let in, and without a reader none of its data', () => {
  const connection = new Connection(reads);
  assert.equal(connection.receives('S').action, 'pass');
  assert.equal(connection.flags, flags.byRequest);
  assert.equal(connection.sends('SA').action, 'pass');
  assert.equal(connection.receives('A').action, 'pass');
  assert.equal(connection.receives('A', 'GET / HTTP/1.1\r\n').reason, 'HTTP_UNREAD');
  assert.equal(connection.sends('A', 'welcome').action, 'pass');
  connection.isRead();
  assert.equal(connection.receives('A', 'GET / HTTP/1.1\r\n').action, 'pass');
  assert.equal(connection.receives('FA').action, 'pass');
});

test('data in the packet that opens is not let in', () => {
  assert.equal(new Connection(reads).receives('S', 'GET /').reason, 'HTTP_UNREAD');
});

test('over other protocols nobody reads, so nothing is let in by requests', () => {
  const spec = { rules: [{ to: [{ operation: { methods: ['GET'] } }] }] };
  const parsed = parseAuthorizationPolicy({ metadata: { name: 'reads', namespace: 'shop' }, spec });
  assert.ok(parsed.ok);
  assert.equal(new Connection([parsed.policy]).receives('S').action, 'pass');
  assert.equal(new Connection([parsed.policy]).receivesUdp().reason, 'POLICY_DENIED');
});

test('what is allowed whatever the request is, or denied whatever it is, is not read', () => {
  const both = new Connection([...reads, ...open]);
  assert.equal(both.receives('S').action, 'pass');
  assert.equal(both.flags, 0);
  assert.equal(both.receives('A', 'anything').action, 'pass');
  const neither = new Connection(others);
  assert.equal(neither.receives('S').reason, 'POLICY_DENIED');
});

test('who could not be answered by the kernel goes to the proxy next, for an hour, where there is one and it is not forbidden', () => {
  const hour = 3_600_000_000_000n;
  const opens = (change: { ago?: bigint; by?: string; never?: boolean } = {}) => {
    const connection = new Connection(reads);
    const at = { endpoint: connection.endpoint, port: 80 };
    const noted = process.hrtime.bigint() - (change.ago ?? 0n);
    node.maps.proxyClients.set({ ...at, remote: parseIp(change.by ?? client) }, noted);
    if (change.never === true) node.maps.proxyPorts.set(at, proxyModes.never);
    connection.receives('S');
    return connection.flags;
  };
  assert.equal(opens(), flags.byRequest, 'there is no proxy');
  node.configure({ proxyIfindex: 77 });
  try {
    assert.equal(opens(), flags.proxied);
    assert.equal(opens({ never: true }), flags.byRequest, 'it is forbidden');
    assert.equal(opens({ ago: hour + 1_000_000_000n }), flags.byRequest, 'the hour is over');
    assert.equal(opens({ by: '203.0.113.10' }), flags.byRequest, 'it was somebody else');
  } finally {
    node.configure({});
  }
});
