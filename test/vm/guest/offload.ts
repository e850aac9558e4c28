import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pino } from 'pino';
import { run } from '../../../src/kernel/command.ts';
import { deviceHas, espOffload } from '../../../src/kernel/device-features.ts';
import { KernelError } from '../../../src/kernel/error.ts';
import { deviceIndex } from '../../../src/kernel/ffi/libc.ts';
import { ipBatch } from '../../../src/kernel/ip.ts';
import { Xfrm } from '../../../src/kernel/xfrm.ts';
import { parseIp } from '../../../src/model/address.ts';
import type { DriverStatistics, InboundSa, OutboundSa, TunnelDriverEvents } from '../../../src/tunnel/driver.ts';
import { type PacketHolder, XfrmDriver } from '../../../src/tunnel/xfrm/xfrm-driver.ts';

/*
 * Crypto in network devices, as far as emulated ones go: a bond in mode active-backup says that it can, for its members may,
 * and the kernel decides about each association.
 */

const [here, there] = [parseIp('172.31.9.1'), parseIp('172.31.9.2')];

before(async () => {
  await ipBatch([
    'link add able type bond mode active-backup',
    'link set dev able up',
    `address add ${here}/24 dev able`,
    'link add unable type dummy',
  ]);
});
after(() => ipBatch(['link del dev able', 'link del dev unable']));

class NoHolder extends EventEmitter<TunnelDriverEvents> implements PacketHolder {
  async release(): Promise<void> {}
  async fail(): Promise<void> {}
  statistics(): Promise<DriverStatistics> {
    return Promise.reject(new Error('nothing is held'));
  }
}

test('what a device says of itself is read', async () => {
  assert.equal(await deviceHas('unable', espOffload), false);
  assert.equal(await deviceHas('able', espOffload), false, 'it could, and is turned off');
  await run('ethtool', ['-K', 'able', espOffload, 'on']);
  assert.equal(await deviceHas('able', espOffload), true);
  await assert.rejects(() => deviceHas('absent', espOffload), KernelError);
});

const common = {
  selectors: [{ local: parseIp('10.244.1.5'), remote: parseIp('10.244.2.5') }],
  peer: { address: there, port: 4500 },
  lifetimes: {},
  note: '',
};
const inbound = (spi: number): InboundSa => ({
  ...{ direction: 'in', spi, ...common },
  ...{ key: Buffer.alloc(32, 1), salt: Buffer.alloc(4, 1) },
});
const outbound = (spi: number): OutboundSa => ({
  ...{ direction: 'out', spi, ...common },
  ...{ key: Buffer.alloc(32, 2), salt: Buffer.alloc(4, 2) },
});

test('the kernel is asked to let the device do it, and where it says no the tunnel is there all the same', async () => {
  const xfrm = new Xfrm();
  const state = {
    ...{ source: there, destination: here, spi: 0x4711, requestId: 1, interfaceId: 9, replayWindow: 64 },
    encapsulation: { sourcePort: 4500, destinationPort: 4500 },
    keyAndSalt: Buffer.alloc(36, 1),
  };
  const refused = (errno: string) => (error: unknown) => error instanceof KernelError && error.errno === errno;
  const ifindex = deviceIndex('able');
  // ESP in UDP is what this kernel lets no device seal.
  assert.throws(() => xfrm.addState({ ...state, offload: { ifindex, direction: 'in' } }), refused('EINVAL'));
  // The question itself is understood: it names a device.
  assert.throws(() => xfrm.addState({ ...state, offload: { ifindex: 9999, direction: 'in' } }), KernelError);
  assert.equal(xfrm.states().length, 0);

  const directory = mkdtempSync(join(tmpdir(), 'myelin-offload-'));
  const said: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void said.push(line) });
  const driver = new XfrmDriver(
    { underlay: { address: here, port: 4500 }, uplink: 'able', interfaceId: 9, notesPath: directory, offload: ifindex },
    { holder: new NoHolder(), paths: { open: () => {}, close: () => {}, all: () => [] }, log },
  );
  try {
    await driver.installInbound(inbound(0x1001));
    await driver.installOutbound(outbound(0x2001));
    await driver.installInbound(inbound(0x1002));
    assert.deepEqual((await driver.list()).map(({ direction, spi }) => `${direction} ${spi.toString(16)}`).sort(), [
      'in 1001',
      'in 1002',
      'out 2001',
    ]);
    // Once for each direction, with why.
    assert.equal(said.length, 2, said.join(''));
    for (const [i, direction] of ['in', 'out'].entries())
      assert.match(said[i] ?? '', new RegExp(`"uplink":"able","direction":"${direction}","why":"EINVAL"`));
    for (const sa of await driver.list()) await driver.remove(sa);
    assert.equal(xfrm.states().length, 0);
  } finally {
    await driver.close();
    xfrm.close();
    rmSync(directory, { recursive: true, force: true });
  }
});
