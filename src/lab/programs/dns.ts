import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { createServer, type Socket } from 'node:net';
import { parseArgs } from 'node:util';
import * as wire from 'dns-packet';
import { pino } from 'pino';
import { ApiClient } from '../../api/client/client.ts';
import { readKubeconfig } from '../../api/client/kubeconfig.ts';
import { Reflector } from '../../api/client/reflector.ts';
import { kinds } from '../../api/kinds.ts';
import { respond } from './dns-answers.ts';
import { addressesOfPod, addressIndex, StoreView, serviceOfSlice, sliceIndex } from './dns-view.ts';

/*
 * The cluster's name server: answers over UDP and TCP from what the API says, and knows no other names.
 */

const { values } = parseArgs({
  options: {
    kubeconfig: { type: 'string', default: '' },
    port: { type: 'string', default: '53' },
    domain: { type: 'string', default: 'cluster.local' },
  },
});
const port = Number(values.port);
const log = pino({ name: 'dns' }, pino.destination(2));
const api = new ApiClient(readKubeconfig(values.kubeconfig));
const deps = { api, logger: log };
const namespaces = new Reflector({ resource: kinds.Namespace }, deps).start();
const services = new Reflector({ resource: kinds.Service }, deps).start();
const slices = new Reflector(
  { resource: kinds.EndpointSlice, indexes: { [sliceIndex]: ({ raw }) => serviceOfSlice(raw) } },
  deps,
).start();
const pods = new Reflector(
  { resource: kinds.Pod, indexes: { [addressIndex]: ({ object }) => addressesOfPod(object) } },
  deps,
).start();
const view = new StoreView({ namespaces, services, slices, pods });

/** What may be answered over UDP to whoever says nothing of larger datagrams (RFC 1035 section 4.2.1). */
const plainLimit = 512;
/** What fits into one packet of any path, whatever the asker says. */
const largestDatagram = 1232;
const tcpIdleMs = 10_000;
const largestQuery = 4096;

function answer(bytes: Buffer): wire.Packet | undefined {
  try {
    return respond(wire.decode(bytes), view, values.domain);
  } catch {
    // Not DNS.
    return undefined;
  }
}

function limitOf(bytes: Buffer): number {
  const option = wire.decode(bytes).additionals?.find((record) => record.type === 'OPT');
  const wanted = option !== undefined && 'udpPayloadSize' in option ? option.udpPayloadSize : plainLimit;
  return Math.min(largestDatagram, Math.max(plainLimit, wanted));
}

function serveUdp(socket: UdpSocket): void {
  socket.on('message', (bytes, peer) => {
    const reply = answer(bytes);
    if (reply === undefined) return;
    let encoded = wire.encode(reply);
    if (encoded.length > limitOf(bytes)) {
      const flags = (reply.flags ?? 0) | wire.TRUNCATED_RESPONSE;
      encoded = wire.encode({ ...reply, flags, answers: [], additionals: [] });
    }
    socket.send(encoded, peer.port, peer.address, () => {});
  });
  socket.bind(port);
}

function serveTcp(socket: Socket): void {
  let pending = Buffer.alloc(0);
  socket.setTimeout(tcpIdleMs, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2) {
      const length = pending.readUInt16BE(0);
      if (length <= largestQuery && pending.length < 2 + length) return;
      const reply = length > largestQuery ? undefined : answer(pending.subarray(2, 2 + length));
      pending = pending.subarray(2 + length);
      if (reply === undefined) {
        socket.destroy();
        return;
      }
      socket.write(wire.streamEncode(reply));
    }
  });
}

// Listening says ready: not before there is something to say.
await Promise.all([namespaces, services, slices, pods].map(({ synced }) => synced));
serveUdp(createSocket('udp6'));
createServer(serveTcp).listen(port, '::');
log.info({ services: services.size }, 'answering');
process.on('SIGTERM', () => process.exit(0));
