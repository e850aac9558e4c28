import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { leastBelievedMtu, PathMtu } from '../../src/agent/path-mtu.ts';
import { type IpAddress, parseIp } from '../../src/model/address.ts';

const [near, far] = [parseIp('192.0.2.1'), parseIp('2001:db8::1')];

function bed(most?: number) {
  const world = { device: 1500, paths: new Map<IpAddress, number>(), refuses: false };
  const told: string[] = [];
  const devices: number[] = [];
  const pathMtu = new PathMtu(most, {
    source: { device: () => world.device, paths: () => world.paths },
    limit: async (address, mtu) => {
      if (world.refuses) throw new Error('the driver is away');
      told.push(`${address ?? 'all'} ${mtu}`);
    },
    onDevice: async (mtu) => void devices.push(mtu),
    logger: pino({ level: 'silent' }),
  });
  const look = async () => {
    told.length = 0;
    await pathMtu.look();
    return [...told];
  };
  return { world, look, devices, pathMtu };
}

test('what changes is told, once', async () => {
  const { world, look, devices } = bed();
  assert.deepEqual(await look(), ['all 1500']);
  assert.deepEqual(await look(), []);
  world.device = 1400;
  assert.deepEqual(await look(), ['all 1400']);
  world.paths.set(far, 1390);
  assert.deepEqual(await look(), ['2001:db8::1 1390']);
  assert.deepEqual(await look(), []);
  world.paths.clear();
  assert.deepEqual(await look(), ['2001:db8::1 0']);
  assert.deepEqual(devices, [1500, 1400]);
});

test('a router’s word is believed down to what IPv6 needs, the operator’s further', async () => {
  const { world, look } = bed();
  world.paths.set(near, 552);
  world.paths.set(far, 1500);
  assert.deepEqual(await look(), ['all 1500', `192.0.2.1 ${leastBelievedMtu}`]);
  const named = bed(1000);
  named.world.paths.set(near, 552);
  assert.deepEqual(await named.look(), ['all 1000']);
});

test('a driver that was away, or lost what it was told, is told all of it again', async () => {
  const { world, look, pathMtu } = bed();
  world.paths.set(near, 1400);
  world.refuses = true;
  await assert.rejects(look());
  world.refuses = false;
  assert.deepEqual(await look(), ['all 1500', '192.0.2.1 1400']);
  pathMtu.forget();
  assert.deepEqual(await look(), ['all 1500', '192.0.2.1 1400']);
});
