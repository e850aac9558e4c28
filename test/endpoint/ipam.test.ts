import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Ipam, IpamError, type Lease } from '../../src/endpoint/ipam.ts';
import type { IpAddress } from '../../src/model/address.ts';
import type { PodRef } from '../../src/model/endpoint.ts';
import { parsePrefix, prefixContains } from '../../src/model/prefix.ts';

const pod = (n: number): PodRef => ({ namespace: 'shop', name: `cart-${n}`, uid: `uid-${n}` });
const dual = [parsePrefix('10.244.1.0/24'), parsePrefix('fd00:10:244:1::/64')];
/** Room for five: .2 to .6. */
const tiny = [parsePrefix('10.244.1.64/29'), parsePrefix('fd00:10:244:1::/64')];
const coolDownMs = 60_000;

test('an address is the same number in both families; network, broadcast and .1 are never given', () => {
  const ipam = new Ipam({ cidrs: dual, coolDownMs }, [], 0);
  assert.deepEqual(ipam.allocate('a', pod(1), 0), ['10.244.1.2', 'fd00:10:244:1::2']);
  const rest = Array.from({ length: 252 }, (_, n) => ipam.allocate(`x${n}`, undefined, 0)[0]);
  assert.equal(new Set(rest).size, 252);
  for (const never of ['10.244.1.0', '10.244.1.1', '10.244.1.255']) assert.ok(!rest.includes(never as IpAddress));
  assert.ok(rest.includes('10.244.1.254' as IpAddress));
});

test('the families may be given in either order, and either may be absent', () => {
  const [four, six] = dual;
  assert.ok(four !== undefined && six !== undefined);
  assert.deepEqual(new Ipam({ cidrs: [six, four], coolDownMs }, [], 0).allocate('a', undefined, 0), [
    '10.244.1.2',
    'fd00:10:244:1::2',
  ]);
  assert.deepEqual(new Ipam({ cidrs: [four], coolDownMs }, [], 0).allocate('a', undefined, 0), ['10.244.1.2']);
  assert.deepEqual(new Ipam({ cidrs: [six], coolDownMs }, [], 0).allocate('a', undefined, 0), ['fd00:10:244:1::2']);
});

test('a full node says what is in use and what cools down', () => {
  const ipam = new Ipam({ cidrs: dual, coolDownMs }, [], 0);
  for (let n = 0; n < 253; n++) ipam.allocate(`c${n}`, pod(n), 0);
  ipam.release('c7', 1000);
  ipam.release('c8', 2000);
  assert.throws(() => ipam.allocate('new', pod(999), 21_000), {
    code: 'Exhausted',
    message:
      'node CIDR 10.244.1.0/24 and fd00:10:244:1::/64 has no free address: 251 in use, 2 cooling down for another 40 s',
  });
  assert.match(ipam.exhaustion(21_000) ?? '', /no free address/);
  assert.equal(ipam.exhaustion(61_000), undefined);
  assert.deepEqual(ipam.allocate('new', pod(999), 61_000), ['10.244.1.9', 'fd00:10:244:1::9']);
});

test('a pod gets its address back at once, also after others took new ones and after a restart', () => {
  const before = new Ipam({ cidrs: dual, coolDownMs }, [], 0);
  const mine = before.allocate('sandbox-1', pod(1), 0);
  before.allocate('other', pod(2), 0);
  before.release('sandbox-1', 10);
  const after = new Ipam({ cidrs: dual, coolDownMs }, before.leases, 20);
  after.allocate('third', pod(3), 20);
  assert.deepEqual(after.allocate('sandbox-2', pod(1), 20), mine);
});

test('a pod of the same name with another UID is another pod', () => {
  const ipam = new Ipam({ cidrs: dual, coolDownMs }, [], 0);
  const first = ipam.allocate('a', pod(1), 0);
  ipam.release('a', 0);
  assert.notDeepEqual(ipam.allocate('b', { ...pod(1), uid: 'reborn' }, 10), first);
});

test('of addresses that were used before, the one released longest ago is given first', () => {
  const ipam = new Ipam({ cidrs: tiny, coolDownMs }, [], 0);
  const given = Array.from({ length: 5 }, (_, n) => ipam.allocate(`c${n}`, pod(n), 0)[0]);
  for (const [at, n] of [3, 0, 4, 1, 2].entries()) ipam.release(`c${n}`, at);
  const again = Array.from({ length: 5 }, (_, n) => ipam.allocate(`d${n}`, pod(10 + n), 100_000)[0]);
  assert.deepEqual(again, [given[3], given[0], given[4], given[1], given[2]]);
});

test('a clock that was set back neither frees an address early nor keeps it for longer than the cool-down', () => {
  const ipam = new Ipam({ cidrs: tiny, coolDownMs }, [], 1_000_000);
  for (let n = 0; n < 5; n++) ipam.allocate(`c${n}`, undefined, 1_000_000);
  ipam.release('c0', 1_000_000);
  const restarted = new Ipam({ cidrs: tiny, coolDownMs }, ipam.leases, 5000);
  assert.throws(() => restarted.allocate('x', undefined, 64_999), { code: 'Exhausted' });
  assert.ok(restarted.allocate('x', undefined, 65_000));
});

test('addresses of a CIDR that the node no longer has stay with their owners and end with them', () => {
  const old = new Ipam({ cidrs: [parsePrefix('10.244.9.0/24')], coolDownMs }, [], 0);
  const kept = old.allocate('a', pod(1), 0);
  old.allocate('b', pod(2), 0);
  old.release('b', 0);
  const now = new Ipam({ cidrs: dual, coolDownMs }, old.leases, 1);
  assert.deepEqual(now.addressesOf('a'), kept);
  assert.deepEqual(
    now.leases.map((lease) => lease.owner),
    ['a'],
  );
  assert.ok(now.release('a', 2));
  assert.deepEqual(now.leases, []);
});

test('a node that becomes dual-stack does not give out the IPv4 address of a pod that is IPv4 only', () => {
  const [four] = dual;
  assert.ok(four !== undefined);
  const old = new Ipam({ cidrs: [four], coolDownMs }, [], 0);
  const kept = old.allocate('a', pod(1), 0);
  const now = new Ipam({ cidrs: dual, coolDownMs }, old.leases, 0);
  assert.deepEqual(now.addressesOf('a'), kept);
  assert.deepEqual(now.allocate('b', pod(2), 0), ['10.244.1.3', 'fd00:10:244:1::3']);
});

test('CIDRs without room, or two of a family, are refused', () => {
  for (const cidrs of [[], ['10.0.0.0/31'], ['10.0.0.0/30'], ['10.0.0.0/24', '10.0.1.0/24'], ['fd00::/128']]) {
    const make = () => new Ipam({ cidrs: cidrs.map(parsePrefix), coolDownMs }, [], 0);
    if (cidrs[0] === '10.0.0.0/30') assert.equal(make().usage(0).size, 1);
    else assert.throws(make, { code: 'InvalidCidr' });
  }
});

test('books that name two owners for one address are refused', () => {
  const lease: Lease = { addresses: ['10.244.1.5' as IpAddress, 'fd00:10:244:1::5' as IpAddress], owner: 'a' };
  assert.throws(() => new Ipam({ cidrs: dual, coolDownMs }, [lease, { ...lease, owner: 'b' }], 0), {
    code: 'Inconsistent',
  });
});

test('a node whose CIDR is a /12 counts on beyond 256, and no further than 16 bits', () => {
  const ipam = new Ipam({ cidrs: [parsePrefix('10.0.0.0/12')], coolDownMs }, [], 0);
  const all = Array.from({ length: 300 }, (_, n) => ipam.allocate(`c${n}`, undefined, 0)[0]);
  assert.equal(all.at(-1), '10.0.1.45');
  assert.equal(ipam.usage(0).size, 65_533);
});

/** What an outside observer knows: who holds what, who held it last, and until when nobody else may. */
class Model {
  now = 1_000_000;
  /** By container: the pod's number and what it was told. */
  readonly held = new Map<number, { pod: number; addresses: readonly IpAddress[] }>();
  /** By first address. */
  readonly last = new Map<IpAddress, { pod: number; releasedAt: number }>();
  /** By pod: its latest addresses, first one. */
  readonly latest = new Map<number, IpAddress>();
}

interface Real {
  ipam: Ipam;
  /** What is on disk. */
  leases: string;
}

type Command = fc.Command<Model, Real>;

const owner = (container: number) => `container-${container}/eth0`;
const restore = (leases: string, now: number) => {
  const parsed: Lease[] = JSON.parse(leases);
  return new Ipam({ cidrs: tiny, coolDownMs }, parsed, now);
};
const save = (real: Real) => {
  real.leases = JSON.stringify(real.ipam.leases);
};

function mayTake(model: Model, first: IpAddress, taker: number): boolean {
  const last = model.last.get(first);
  return last === undefined || last.pod === taker || model.now >= last.releasedAt + coolDownMs;
}

class Allocate implements Command {
  readonly container: number;
  readonly pod: number;
  /** A crash after the write and before the reply: the runtime does not know of the addresses, and calls DEL. */
  readonly replyIsLost: boolean;

  constructor(container: number, podNumber: number, replyIsLost: boolean) {
    this.container = container;
    this.pod = podNumber;
    this.replyIsLost = replyIsLost;
  }

  check(model: Readonly<Model>): boolean {
    return !model.held.has(this.container);
  }

  run(model: Model, real: Real): void {
    const takenNow = new Set([...model.held.values()].map(({ addresses }) => addresses[0]));
    const expected = model.latest.get(this.pod);
    const sticky =
      expected !== undefined && !takenNow.has(expected) && model.last.get(expected)?.pod === this.pod
        ? expected
        : undefined;
    let addresses: readonly IpAddress[];
    try {
      addresses = real.ipam.allocate(owner(this.container), pod(this.pod), model.now);
    } catch (error) {
      assert.ok(error instanceof IpamError && error.code === 'Exhausted');
      // Refused only where the observer sees none either.
      for (let n = 66; n <= 70; n++) {
        const ip = `10.244.1.${n}` as IpAddress;
        assert.ok(takenNow.has(ip) || !mayTake(model, ip, this.pod), `${ip} was free`);
      }
      return;
    }
    save(real);
    const [first, second] = addresses;
    assert.ok(first !== undefined && second !== undefined && addresses.length === 2);
    assert.ok(tiny.every((cidr, family) => prefixContains(cidr, addresses[family] ?? first)));
    assert.equal(second, `fd00:10:244:1::${Number(first.split('.')[3]) - 64}`, 'one number in both families');
    assert.ok(!takenNow.has(first), `${first} has two owners`);
    assert.ok(mayTake(model, first, this.pod), `${first} still cools down`);
    if (sticky !== undefined) assert.equal(first, sticky, 'the pod gets its address back');
    if (this.replyIsLost) real.ipam = restore(real.leases, model.now);
    model.held.set(this.container, { pod: this.pod, addresses });
    model.latest.set(this.pod, first);
    model.last.delete(first);
  }

  toString(): string {
    return `allocate(container ${this.container}, pod ${this.pod}${this.replyIsLost ? ', then crash' : ''})`;
  }
}

class Release implements Command {
  readonly container: number;
  /** A crash before the write: the runtime asks again. */
  readonly crashesFirst: boolean;

  constructor(container: number, crashesFirst: boolean) {
    this.container = container;
    this.crashesFirst = crashesFirst;
  }

  check(): boolean {
    return true;
  }

  run(model: Model, real: Real): void {
    if (this.crashesFirst) {
      real.ipam.release(owner(this.container), model.now);
      real.ipam = restore(real.leases, model.now);
    }
    const held = model.held.get(this.container);
    assert.deepEqual(real.ipam.addressesOf(owner(this.container)), held?.addresses);
    assert.equal(real.ipam.release(owner(this.container), model.now), held !== undefined);
    assert.equal(real.ipam.release(owner(this.container), model.now), false, 'a second time changes nothing');
    save(real);
    const first = held?.addresses[0];
    if (held === undefined || first === undefined) return;
    model.held.delete(this.container);
    model.last.set(first, { pod: held.pod, releasedAt: model.now });
    model.latest.set(held.pod, first);
  }

  toString(): string {
    return `release(container ${this.container}${this.crashesFirst ? ', after a crash' : ''})`;
  }
}

class Wait implements Command {
  readonly ms: number;

  constructor(ms: number) {
    this.ms = ms;
  }

  check(): boolean {
    return true;
  }

  run(model: Model): void {
    model.now += this.ms;
  }

  toString(): string {
    return `wait(${this.ms})`;
  }
}

class Restart implements Command {
  check(): boolean {
    return true;
  }

  run(model: Model, real: Real): void {
    real.ipam = restore(real.leases, model.now);
    for (const [container, { addresses }] of model.held)
      assert.deepEqual(real.ipam.addressesOf(owner(container)), addresses, 'owners keep what they have');
    assert.equal(real.ipam.usage(model.now).inUse, model.held.size);
  }

  toString(): string {
    return 'restart';
  }
}

test('whatever happens: one owner for an address, cool-down honoured, a pod gets its address back', () => {
  const container = fc.nat({ max: 8 });
  const commands = fc.commands(
    [
      fc.tuple(container, fc.nat({ max: 6 }), fc.boolean()).map(([c, p, lost]) => new Allocate(c, p, lost)),
      fc.tuple(container, fc.boolean()).map(([c, crash]) => new Release(c, crash)),
      fc.nat({ max: 70_000 }).map((ms) => new Wait(ms)),
      fc.constant(new Restart()),
    ],
    { maxCommands: 80, size: 'max' },
  );
  fc.assert(
    fc.property(commands, (all) => {
      fc.modelRun(() => ({ model: new Model(), real: { ipam: restore('[]', 1_000_000), leases: '[]' } }), all);
    }),
    { numRuns: 2000 },
  );
});
