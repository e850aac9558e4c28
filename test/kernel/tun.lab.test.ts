import assert from 'node:assert/strict';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { closeSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { KernelError } from '../../src/kernel/error.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { probe, requireCapabilities } from '../../src/kernel/probe.ts';
import { listenUnix, openUdp, peerCredentials } from '../../src/kernel/sockets.ts';
import { openTun, tunOffloads } from '../../src/kernel/tun.ts';
import { parseIp } from '../../src/model/address.ts';
import { runInOwnNamespace } from '../support/namespace.ts';

runInOwnNamespace();
before(() => ipBatch(['link set lo up']));

/** Reads one packet from a non-blocking TUN descriptor. */
async function readPacket(fd: number): Promise<Buffer> {
  const buffer = Buffer.alloc(70_000);
  for (let tries = 0; tries < 200; tries++) {
    try {
      const packet = buffer.subarray(0, readSync(fd, buffer));
      // The kernel sends router solicitations of its own accord.
      if ((packet[10] ?? 0) >> 4 === 4) return packet;
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error) || error.code !== 'EAGAIN') throw error;
      await sleep(5);
    }
  }
  assert.fail('no packet came');
}

test('a packet goes through a TUN device with its offload header', async () => {
  const { fds, offloads } = openTun({ name: 'mytun0' });
  const [fd = -1] = fds;
  assert.ok(offloads & tunOffloads.checksum, 'this kernel has checksum offload at least');
  assert.ok(offloads & tunOffloads.tso4);
  await ipBatch(['link set mytun0 up', 'addr add 192.0.2.1/24 dev mytun0']);
  const socket = dgram.createSocket('udp4');
  socket.send('hello', 4242, '192.0.2.2');
  const packet = await readPacket(fd);
  // 10 bytes of virtio_net_hdr, 20 of IPv4, 8 of UDP.
  assert.equal(packet.subarray(38).toString(), 'hello');
  assert.equal((packet[0] ?? 0) & 1, 1, 'the checksum is left to the reader (VIRTIO_NET_HDR_F_NEEDS_CSUM)');
  socket.close();
  closeSync(fd);
  assert.equal(await findLink('mytun0'), undefined, 'it goes with its last descriptor');
});

test('several queues, persistence, and a name that is taken', async () => {
  const { fds } = openTun({ name: 'mytun1', queues: 2, persist: true, vnetHeader: false });
  assert.equal(fds.length, 2);
  for (const fd of fds) closeSync(fd);
  assert.ok(await findLink('mytun1'), 'it persists');
  const again = openTun({ name: 'mytun1', queues: 2, vnetHeader: false });
  assert.throws(
    () => openTun({ name: 'mytun1' }),
    (error) =>
      error instanceof KernelError && ['EBUSY', 'EINVAL'].includes(error.errno ?? '') && /mytun1/.test(error.message),
  );
  for (const fd of again.fds) closeSync(fd);
  assert.equal(await findLink('mytun1'), undefined, 'persistence was given up');
  assert.throws(() => openTun({ name: 'a-name-that-is-too-long' }), { message: /ENAMETOOLONG/ });
});

test('UDP sockets are bound with their options', async () => {
  const { fd, port } = openUdp({
    address: parseIp('127.0.0.1'),
    port: 0,
    gro: true,
    mtuDiscover: 'probe',
    bufferBytes: 1 << 20,
  });
  assert.ok(port > 0);
  const sender = dgram.createSocket('udp4');
  sender.send('to a raw descriptor', port, '127.0.0.1');
  const buffer = Buffer.alloc(100);
  await sleep(20);
  assert.equal(buffer.subarray(0, readSync(fd, buffer)).toString(), 'to a raw descriptor');
  sender.close();
  assert.throws(
    () => openUdp({ address: parseIp('127.0.0.1'), port }),
    (error) =>
      error instanceof KernelError && error.errno === 'EADDRINUSE' && error.message.includes(`127.0.0.1:${port}`),
  );
  assert.throws(() => openUdp({ address: parseIp('192.0.2.77'), port: 0 }), { message: /EADDRNOTAVAIL/ });
  closeSync(fd);
  for (const options of [{}, { ipv6Only: true }, { espInUdp: true }]) {
    const dual = openUdp({ address: parseIp('::'), port: 0, mtuDiscover: 'do', ...options });
    closeSync(dual.fd);
  }
});

test('a Unix socket takes the place of a dead one, and knows who connects', async () => {
  const path = join(tmpdir(), `myelin-test-${process.pid}.sock`);
  closeSync(listenUnix(path));
  const fd = listenUnix(path);
  assert.ok(statSync(path).isSocket());
  const server = new net.Server();
  server.listen({ fd });
  const client = net.connect(path);
  const [connection] = (await once(server, 'connection')) as [net.Socket];
  const handle: unknown = Reflect.get(connection, '_handle');
  const clientFd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  assert.equal(peerCredentials(Number(clientFd)).pid, process.pid);
  client.destroy();
  connection.destroy();
  server.close();
  rmSync(path, { force: true });
  assert.throws(() => listenUnix(`/tmp/${'x'.repeat(120)}`), { message: /ENAMETOOLONG/ });
  assert.equal(writeSync(1, ''), 0);
});

test('this machine has what Myelin needs, and says so', async () => {
  const found = await probe();
  assert.deepEqual(
    found.filter(({ required, present }) => required && !present),
    [],
  );
  assert.equal(found.length, (await requireCapabilities()).length);
});
