/**
 * One node's tunnel driver with the datapath around it, as an agent has them, in a process of its own: it runs in the
 * node's network namespace and is called over IPC. Ending it is an agent's restart: what it installed goes on.
 */
import { pino } from 'pino';
import { openDriver } from '../../src/agent/driver.ts';
import { findUplink, setUpNode } from '../../src/agent/node-setup.ts';
import { Datapath } from '../../src/datapath/datapath.ts';
import { findLink } from '../../src/kernel/ip.ts';
import { parseIp } from '../../src/model/address.ts';
import { compile } from '../../src/policy/compile.ts';
import { identityOf } from '../../src/policy/lookup.ts';
import {
  type InboundSa,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  TunnelError,
} from '../../src/tunnel/driver.ts';
import { objectDir } from '../datapath/maps.ts';
import { clusterWith } from './cluster.ts';
import { type Call, events, type HostOptions, podOf, type Reply } from './driver-wire.ts';

const options: HostOptions = JSON.parse(process.argv[2] ?? '{}');
const logger = pino({ level: process.env.TEST_LOG ?? 'error' }, pino.destination(2));
const say = (reply: Reply) => process.send?.(reply);

const { node, driver: kind, runDir, pinDir, endpoint } = options;
const pods = options.pods.map(podOf);
const view = clusterWith([], { pods: new Map(pods.map((pod) => [pod.uid, pod])) });
const { podCidrs = [] } = view.settings;
const underlay = parseIp(options.underlay);

const uplink = await findUplink('eth0');
const datapath = Datapath.open({ objectDir, pinDir, maxEntries: { ct: 4096, service_flows: 1024 } });
await setUpNode({ uplink: 'eth0', tunnel: 'myelin0', nodePods: podCidrs, clusterPods: podCidrs });
const opened = await openDriver(
  {
    driver: kind,
    preferDriver: 'engine',
    threads: 1,
    runDir,
    bpfDir: pinDir,
    espPort: 4500,
    underlay,
    uplink: 'eth0',
    mtu: uplink.podMtu,
    paths: (carrier) => ({
      open: ({ local, remote }) => datapath.openPath(local, remote, carrier),
      close: ({ local, remote }) => datapath.closePath(local, remote),
      all: () => datapath.paths(),
    }),
  },
  logger,
);
const { driver } = opened;
datapath.setConfig({
  uplinkIfindex: uplink.ifindex,
  tunnelIfindex: opened.ifindex,
});
datapath.attachUplink(uplink.ifindex);
datapath.carryBy({ device: opened.ifindex, carrier: opened.carrier, changing: false });
const link = await findLink(endpoint.device);
if (link === undefined) throw new Error(`no device ${endpoint.device}`);
datapath.setEndpoint({
  uid: endpoint.uid,
  ifindex: link.ifindex,
  mac: endpoint.mac,
  hostMac: endpoint.hostMac,
  addresses: endpoint.addresses,
});
await datapath.applyPolicy(compile(view, node, datapath.policy));

for (const event of events) driver.on(event, (...args: unknown[]) => say({ kind: 'event', event, argument: args[0] }));

const zeroed = (sa: InboundSa | OutboundSa) => [sa.key, sa.salt].every((bytes) => bytes.every((byte) => byte === 0));

/** Proven inbound associations, the newest last. */
let proven: Pick<InboundSa, 'spi' | 'selectors'>[] = (await driver.list()).filter(
  ({ direction }) => direction === 'in',
);

/** Tells the datapath what the newest proven association of each pair is, as an agent does. */
function prove(pairs: readonly TrafficSelector[]): void {
  for (const { local, remote } of pairs) {
    const of = proven.filter(({ selectors }) =>
      selectors.some((pair) => pair.local === local && pair.remote === remote),
    );
    const owner = pods.find(({ addresses }) => addresses.includes(remote));
    const identity = owner === undefined ? undefined : identityOf(datapath.policy, owner.uid, remote);
    const newest = of.at(-1);
    if (newest === undefined || identity === undefined) datapath.forgetTunnel(local, remote);
    else datapath.proveTunnel(local, remote, { identity, spi: newest.spi });
  }
}

async function remove(sa: SaId): Promise<void> {
  const own = sa.direction === 'in' ? proven.find(({ spi }) => spi === sa.spi) : undefined;
  if (own !== undefined) {
    proven = proven.filter((other) => other !== own);
    prove(own.selectors);
  }
  await driver.remove(sa);
}

async function install(sa: InboundSa | OutboundSa): Promise<boolean> {
  try {
    if (sa.direction === 'in') await driver.installInbound(sa);
    else await driver.installOutbound(sa);
  } catch (error) {
    if (error instanceof TunnelError && !zeroed(sa)) throw new Error('a refused key was not zeroed');
    throw error;
  }
  return zeroed(sa);
}

async function carryOut(call: Call): Promise<unknown> {
  switch (call.method) {
    case 'installInbound': {
      const done = await install(call.sa);
      if (call.proven) {
        proven.push(call.sa);
        prove(call.sa.selectors);
      }
      return done;
    }
    case 'installOutbound':
      return install(call.sa);
    case 'remove':
      return remove(call.sa);
    case 'movePeer':
      return driver.movePeer(call.sa, call.peer);
    case 'keepAlive':
      return opened.keepAlive(call.peer);
    case 'fail':
      return driver.fail(call.pair);
    case 'list':
      return driver.list();
    case 'statistics':
      return driver.statistics();
    case 'drops':
      return datapath.metrics().drops;
    case 'close':
      await opened.close();
      await datapath.close();
      return undefined;
  }
}

process.on('message', (call: Call) => {
  carryOut(call).then(
    (result) => {
      say({ kind: 'result', id: call.id, result });
      if (call.method === 'close') process.disconnect();
    },
    (error: unknown) =>
      say({
        kind: 'error',
        id: call.id,
        code: error instanceof TunnelError ? error.code : 'unexpected',
        message: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }),
  );
});
process.on('disconnect', () => process.exit(0));
say({ kind: 'ready' });
