import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import fc from 'fast-check';
import { RevisionRefused } from '../../src/datapath/error.ts';
import { type ServiceFront, ServiceTable, type TransportAddress } from '../../src/datapath/services.ts';
import { parseIp } from '../../src/model/address.ts';
import { type Protocol, protocolNumbers } from '../../src/model/port.ts';
import { smallMaps, TestMaps } from './maps.ts';

const kernel = new TestMaps();
const { maps } = kernel;
const tables: ServiceTable[] = [];

async function startOver(): Promise<void> {
  await Promise.all(tables.splice(0).map((table) => table.settled));
  kernel.clear();
}
afterEach(startOver);
after(() => kernel.close());

function newTable(): ServiceTable {
  const table = new ServiceTable(maps);
  tables.push(table);
  return table;
}

function front(n: number, backends: readonly number[], protocol: Protocol = 'TCP'): ServiceFront {
  return {
    name: `ns/service-${n}:80`,
    protocol,
    front: { address: parseIp(`10.96.0.${n}`), port: 80 },
    backends: backends.map((b) => ({ address: parseIp(`10.244.0.${b}`), port: 8080 })),
  };
}

/** The backends that a packet could draw now. Fails where it could draw a slot that holds none, as a packet would. */
function drawable({ front: { address, port }, protocol }: ServiceFront): TransportAddress[] | undefined {
  const service = maps.services.get({ address, port, protocol: protocolNumbers[protocol] });
  if (service === undefined) return undefined;
  const reverse = maps.serviceFronts.get(service.id);
  assert.deepEqual(reverse, { address, port }, 'replies find the way back');
  return Array.from({ length: service.count }, (_, slot) => {
    const backend = maps.backends.get({ service: service.id, slot });
    assert.ok(backend !== undefined, `slot ${slot} of ${service.count} is empty`);
    return backend;
  });
}

const names = (ends: readonly TransportAddress[] | undefined) => ends?.map(({ address }) => String(address)).sort();

const fronts = fc.uniqueArray(
  fc
    .tuple(fc.nat(5), fc.uniqueArray(fc.nat(8), { maxLength: 6 }), fc.constantFrom<Protocol>('TCP', 'UDP'))
    .map(([n, backends, protocol]) => front(n, backends, protocol)),
  { maxLength: 6, selector: ({ name, protocol }) => `${name} ${protocol}` },
);

test('after each change the maps are the services, on the way every slot that can be drawn is one of old or new', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fronts, { minLength: 1, maxLength: 4 }), fc.nat(3), async (changes, restartAt) => {
      await startOver();
      let table = newTable();
      let before: readonly ServiceFront[] = [];
      for (const [i, wanted] of changes.entries()) {
        if (i === restartAt) {
          await table.settled;
          table = newTable();
        }
        const known = new Map([...before, ...wanted].map((one) => [`${one.name} ${one.protocol}`, one]));
        const allowed = new Map(
          [...known].map(([key]) => [
            key,
            new Set(
              [...before, ...wanted]
                .filter((one) => `${one.name} ${one.protocol}` === key)
                .flatMap((one) => names(one.backends) ?? []),
            ),
          ]),
        );
        kernel.onWrite = () => {
          for (const [key, one] of known)
            for (const name of names(drawable(one)) ?? [])
              assert.ok(allowed.get(key)?.has(name), `${key} draws ${name}`);
        };
        await table.apply(wanted);
        for (const one of wanted) assert.deepEqual(names(drawable(one)), names(one.backends));
        await table.settled;
        kernel.onWrite = () => {};
        assert.equal([...maps.services.entries()].length, wanted.length);
        assert.equal([...maps.serviceFronts.entries()].length, wanted.length);
        assert.equal(
          [...maps.backends.entries()].length,
          wanted.reduce((sum, { backends }) => sum + backends.length, 0),
        );
        before = wanted;
      }
    }),
    { numRuns: 40 },
  );
});

test('a service keeps its id, also over a restart; one that is gone gives it to nobody', async () => {
  const table = newTable();
  await table.apply([front(1, [1]), front(2, [2])]);
  const idOf = (n: number) => maps.services.get({ address: parseIp(`10.96.0.${n}`), port: 80, protocol: 6 })?.id ?? 0;
  const [one, two] = [idOf(1), idOf(2)];
  await table.apply([front(1, [1, 5])]);
  assert.equal(idOf(1), one);
  assert.equal(table.nameOf(two), 'ns/service-2:80', 'events of its last connections still come');
  await table.apply([front(1, [1, 5]), front(4, [4])]);
  assert.ok(idOf(4) > Math.max(one, two));
  await table.settled;
  const restarted = newTable();
  await restarted.apply([front(1, [1]), front(3, [3])]);
  assert.equal(idOf(1), one);
  assert.notEqual(idOf(3), one);
  assert.equal(restarted.nameOf(one), 'ns/service-1:80');
});

test('a UDP flow leaves a backend that is gone; TCP keeps it, and so does who is not concerned', async () => {
  const table = newTable();
  await table.apply([front(1, [1, 2], 'UDP'), front(1, [1, 2], 'TCP')]);
  const address = parseIp('10.96.0.1');
  const id = (protocol: number) => maps.services.get({ address, port: 80, protocol })?.id ?? 0;
  const flow = (protocol: number, localPort: number, backend: string, flags = 0) =>
    maps.serviceFlows.set(
      { endpoint: 1, localPort, remotePort: 80, remote: address, protocol },
      { address: parseIp(backend), port: 8080, flags, service: id(protocol), expiresNs: 1n },
    );
  flow(17, 1, '10.244.0.1');
  flow(17, 2, '10.244.0.2');
  flow(17, 3, '10.96.0.1', 1);
  flow(6, 4, '10.244.0.1');
  await table.apply([front(1, [2], 'UDP'), front(1, [2], 'TCP')]);
  assert.deepEqual([...maps.serviceFlows.entries()].map(([{ localPort }]) => localPort).sort(), [2, 3, 4]);
});

test('services that do not fit are refused, and those that are there stay', async () => {
  const table = newTable();
  const some = [front(1, [1, 2, 3]), front(2, [])];
  await table.apply(some);
  await table.settled;
  const before = kernel.dump();
  const many = Array.from({ length: smallMaps.services + 1 }, (_, n) => front(n, [1]));
  await assert.rejects(
    table.apply(many),
    (error) => error instanceof RevisionRefused && error.code === 'ServicesRefused' && error.map === 'services',
  );
  const wide = Array.from({ length: 30 }, (_, n) => front(n, [1, 2, 3, 4, 5, 6, 7, 8, 9]));
  await assert.rejects(table.apply(wide), { map: 'backends' });
  // Room that this process does not know is taken.
  for (let service = 1000; ; service++)
    if (
      maps.backends.setMany([
        [
          { service, slot: 0 },
          { address: parseIp('::1'), port: 1 },
        ],
      ]).error
    )
      break;
  const full = kernel.dump();
  await assert.rejects(table.apply([front(1, [1, 2, 3, 4]), front(3, [9])]), { map: 'backends' });
  assert.deepEqual(kernel.dump(), full);
  assert.notDeepEqual(full, before);
  await table.apply([front(1, [1, 2])]);
  assert.deepEqual(names(drawable(front(1, []))), ['10.244.0.1', '10.244.0.2']);
});
