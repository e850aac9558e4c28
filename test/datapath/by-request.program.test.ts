import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { proxyModes } from '../../src/datapath/layouts.ts';
import { parseIp } from '../../src/model/address.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { parseCiliumPolicy } from '../../src/policy/cilium/parse.ts';
import { compile } from '../../src/policy/compile.ts';
import { verdictCodes } from '../../src/policy/image.ts';
import { parseAuthorizationPolicy } from '../../src/policy/istio/authorization.ts';
import type { Policy } from '../../src/policy/rule.ts';
import { clusterWith, pod } from '../support/cluster.ts';
import { frame, ip, tcp, udp } from '../support/packet.ts';
import { marks, type Pod } from './cluster.ts';
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
  readonly #pod: Pod;
  readonly #set: number;

  constructor(policies: readonly Policy[] | Connection) {
    if (policies instanceof Connection) {
      this.#pod = policies.#pod;
      this.#set = policies.#set;
      return;
    }
    const image = compile(clusterWith([...policies], { pods }), 'node-1');
    this.#pod = install(node, image).pod('shop/web');
    this.#set = image.endpoints.get('shop/web')?.ingressSet ?? assert.fail('the pod has a rule set');
  }

  /** Another connection of the same two. */
  again(): Connection {
    return new Connection(this);
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

  /** Says who reads the port's requests. */
  readBy(mode: keyof typeof proxyModes): void {
    node.maps.proxyPorts.set({ endpoint: this.#pod.id, port: 80 }, proxyModes[mode]);
  }

  /** Adds a rule about the port to all of the pod's ingress. */
  addRule(verdict: keyof typeof verdictCodes, precedence: number): void {
    const set = node.maps.ruleSets.get(this.#set) ?? assert.fail('it is in the map');
    node.maps.ruleSets.set(this.#set, { ...set, probes: set.probes | (1 << 15) });
    node.maps.policy.set(
      { set: this.#set, identity: reservedIdentity.any, port: 80, protocol: 6, portLength: 15 },
      { precedence, rule: 1, verdict: verdictCodes[verdict], flags: 0, cell: 0 },
    );
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

test('a port whose requests the proxy reads has new connections go there, if there is one; what the kernel has it keeps', () => {
  const old = new Connection(reads);
  assert.equal(old.receives('S').action, 'pass');
  old.isRead();
  old.readBy('always');
  assert.equal(old.again().receives('S').action, 'pass', 'there is no proxy');
  try {
    node.configure({ proxyIfindex: 77 });
    const next = old.again();
    assert.equal(next.receives('S').action, 'redirect');
    assert.equal(next.flags, flags.proxied);
    assert.equal(next.receives('A', 'PRI * HTTP/2.0').action, 'redirect');
    node.configure({ proxyIfindex: 77, revision: 2 });
    assert.equal(old.receives('A', 'GET / HTTP/1.1').action, 'pass');
    assert.equal(old.flags, flags.byRequest | flags.read);
    assert.equal(next.receives('A', 'more').action, 'redirect');
    next.readBy('never');
    const forbidden = old.again();
    assert.equal(forbidden.receives('S').action, 'pass');
    assert.equal(forbidden.flags, flags.byRequest);
  } finally {
    node.configure({});
  }
});

test('where the proxy would have to say of some requests, it says of all', () => {
  try {
    node.configure({ proxyIfindex: 77 });
    for (const precedence of [1, 0xffff_fffe]) {
      const mixed = new Connection(reads);
      mixed.addRule('proxy', precedence);
      assert.equal(mixed.receives('S').action, 'redirect');
      assert.equal(mixed.flags, flags.proxied);
    }
    const surely = new Connection(reads);
    surely.addRule('allow', 0xffff_ffff);
    assert.equal(surely.receives('S').action, 'pass');
    assert.equal(surely.flags, 0);
  } finally {
    node.configure({});
  }
});
