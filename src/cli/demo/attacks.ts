import { join } from 'node:path';
import { z } from 'zod';
import type { KubeObject } from '../../api/kinds.ts';
import { controllerUrl, pkiPaths } from '../../lab/pki.ts';
import { macToBytes } from '../../model/address.ts';
import { decidedBy } from '../../observe/format.ts';
import { udpFrame } from './frames.ts';
import { addressOf, type Stage } from './stage.ts';

/** What came of an attack. */
export interface Outcome {
  readonly attack: string;
  readonly stopped: boolean;
  /** What stopped it, as the node counted it, or what went wrong. */
  readonly by: string;
}

export interface Attack {
  readonly name: string;
  readonly run: (stage: Stage, capture: Buffer) => Promise<Omit<Outcome, 'attack'>>;
}

const namespace = 'boutique';
const frames = 5;
const payload = Buffer.from('attack');

/** Repeats until it is so, for at most three seconds: counters are read from the kernel, but events take a moment. */
async function eventually<T>(ask: () => Promise<T>, good: (value: T) => boolean): Promise<T> {
  const end = Date.now() + 3000;
  for (;;) {
    const value = await ask();
    if (good(value) || Date.now() > end) return value;
    await new Promise((wait) => setTimeout(wait, 100));
  }
}

/** Does something and sees whether the node counted as many drops for one of the reasons. */
async function counted(
  stage: Stage,
  node: string,
  reasons: readonly string[],
  count: number,
  act: () => Promise<void>,
): Promise<Omit<Outcome, 'attack'>> {
  const before = await stage.dropped(node, ...reasons);
  await act();
  const dropped =
    (await eventually(
      () => stage.dropped(node, ...reasons),
      (after) => after - before >= count,
    )) - before;
  return { stopped: dropped >= count, by: `${dropped} of ${count} dropped on ${node}: ${reasons.join(' or ')}` };
}

async function fromFrontend(
  stage: Stage,
  forge: { address: boolean; mac: boolean },
  reason: string,
): Promise<Omit<Outcome, 'attack'>> {
  const [frontend, redis, cart] = await Promise.all(
    ['frontend', 'redis', 'cart'].map((app) => stage.podOf(namespace, app)),
  );
  if (frontend === undefined || redis === undefined || cart === undefined) throw new Error('the shop is not complete');
  const node = frontend.spec.nodeName ?? '';
  const own = await stage.mac({ namespace, pod: frontend.metadata.name });
  const frame = udpFrame({
    sourceMac: forge.mac ? await stage.mac({ namespace, pod: cart.metadata.name }) : own,
    destinationMac: own,
    source: addressOf(forge.address ? cart : frontend),
    destination: addressOf(redis),
    sourcePort: 40_000,
    destinationPort: 6379,
    payload,
  });
  return counted(stage, node, [reason], frames, () =>
    stage.injectFromPod(namespace, frontend.metadata.name, new Array<Buffer>(frames).fill(frame)),
  );
}

async function uninvited(stage: Stage): Promise<Omit<Outcome, 'attack'>> {
  const redis = await stage.podOf(namespace, 'redis');
  const name = 'intruder';
  const pod: KubeObject & { spec: unknown } = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { app: 'intruder' } },
    spec: { containers: [{ name: 'shell', image: 'busybox', command: ['sleep', '3600'] }] },
  };
  await stage.lab.applyObjects([pod]);
  await stage.lab.waitReady({ namespace: 'default', timeoutMs: 20_000 });
  const probe = `require('net').connect(6379, '${addressOf(redis)}').on('connect', () => process.exit(0)).on('error', () => process.exit(3)).setTimeout(1500, () => process.exit(4))`;
  const { status } = await stage.inPod('default', name, [process.execPath, '-e', probe]);
  const denials = await eventually(
    () => stage.flows({ verdict: 'deny', from: `default/${name}` }),
    (flows) => flows.length > 0,
  );
  const [denial] = denials;
  return {
    stopped: status !== 0 && denial !== undefined,
    by: denial === undefined ? `nothing was seen to deny it (exit ${status})` : decidedBy(denial),
  };
}

async function plaintext(stage: Stage): Promise<Omit<Outcome, 'attack'>> {
  const redis = await stage.podOf(namespace, 'redis');
  const node = redis.spec.nodeName ?? '';
  const elsewhere = (await stage.pods(namespace)).find(({ spec }) => spec.nodeName !== node);
  if (elsewhere === undefined) return { stopped: false, by: 'all pods are on one node' };
  const frame = udpFrame({
    // Its own: with another's the underlay's switch would send that one's frames here, and the attacker would show.
    sourceMac: await stage.mac({ host: 'world' }),
    destinationMac: await stage.mac({ host: node }),
    source: addressOf(elsewhere),
    destination: addressOf(redis),
    sourcePort: 40_000,
    destinationPort: 6379,
    payload,
  });
  return counted(stage, node, ['PLAINTEXT'], frames, () =>
    stage.injectFromWorld(new Array<Buffer>(frames).fill(frame)),
  );
}

/** Single ESP packets out of a capture, ready to be sent again by the outsider, with the node that each was sent to. */
async function espFrames(stage: Stage, capture: Buffer): Promise<{ node: string; frame: Buffer }[]> {
  const macs = new Map<string, string>();
  for (const { name } of stage.lab.plan.nodes) macs.set(await stage.mac({ host: name }), name);
  const world = Buffer.from(macToBytes(await stage.mac({ host: 'world' })));
  const found: { node: string; frame: Buffer }[] = [];
  for (let at = 24; at + 16 <= capture.length; ) {
    const length = capture.readUInt32LE(at + 8);
    const frame = capture.subarray(at + 16, at + 16 + length);
    at += 16 + length;
    // A batch of packets that the kernel had not split yet when it was captured is too long to be sent again as it is.
    const single = frame.length >= 14 + 20 + 8 + 8 + 8 + 16 && frame.length <= 1514;
    if (!single || frame.readUInt16BE(12) !== 0x0800 || frame[23] !== 17 || frame.readUInt16BE(36) !== 4500) continue;
    const mac = [...frame.subarray(0, 6)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    const node = macs.get(mac);
    if (node === undefined) continue;
    const copy = Buffer.from(frame);
    world.copy(copy, 6);
    // UDP checksum 0, not computed (RFC 3948 section 2.1): the captured one was left to hardware that is not there.
    copy.writeUInt16BE(0, 14 + 20 + 6);
    found.push({ node, frame: copy });
  }
  return found;
}

async function replayed(stage: Stage, capture: Buffer): Promise<Omit<Outcome, 'attack'>> {
  const [sample] = (await espFrames(stage, capture)).slice(-1);
  if (sample === undefined) return { stopped: false, by: 'the capture holds no single ESP packet' };
  return counted(stage, sample.node, ['REPLAYED', 'BEHIND_WINDOW'], frames, () =>
    stage.injectFromWorld(new Array<Buffer>(frames).fill(sample.frame)),
  );
}

async function forged(stage: Stage, capture: Buffer): Promise<Omit<Outcome, 'attack'>> {
  const [sample] = (await espFrames(stage, capture)).slice(-1);
  if (sample === undefined) return { stopped: false, by: 'the capture holds no single ESP packet' };
  const esp = 14 + 20 + 8;
  const forgeries = Array.from({ length: frames }, (_, i) => {
    const frame = Buffer.from(sample.frame);
    // A sequence number that was not seen yet, so that only the seal can tell; RFC 4303 section 2.2.
    frame.writeUInt32BE((frame.readUInt32BE(esp + 4) + 1000 + i) >>> 0, esp + 4);
    return frame;
  });
  return counted(stage, sample.node, ['AUTHENTICATION'], frames, () => stage.injectFromWorld(forgeries));
}

async function foreignCertificate(stage: Stage): Promise<Omit<Outcome, 'attack'>> {
  const redis = await stage.podOf(namespace, 'redis');
  const other = stage.lab.plan.nodes.find(({ name }) => name !== redis.spec.nodeName);
  if (other === undefined) return { stopped: false, by: 'there is only one node' };
  const pki = pkiPaths(stage.lab.plan);
  const { name, uid } = redis.metadata;
  const request = {
    pod: { namespace, name, uid },
    serviceAccount: redis.spec.serviceAccountName ?? 'default',
    addresses: [addressOf(redis)],
  };
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', join(import.meta.dirname, 'ask-ca.ts')];
  const asked = [
    controllerUrl(stage.lab.plan),
    pki.certificate(other.name),
    pki.key(other.name),
    pki.bundle,
    JSON.stringify(request),
  ];
  const { stdout, stderr, status } = await stage.run(stage.lab.hostCommand(other.name, [...command, ...asked]));
  if (status !== 0) return { stopped: false, by: `the CA could not be asked: ${stderr.trim()}` };
  const { issued, reason } = z.object({ issued: z.boolean(), reason: z.string() }).parse(JSON.parse(stdout));
  return {
    stopped: !issued && !reason.startsWith('IssuerUnreachable'),
    by: issued ? 'the CA signed' : `the CA refused ${other.name}: ${reason}`,
  };
}

/** All attacks but the one on stale caches, which takes a scene of its own (stale-cache.ts). */
export const attacks: readonly Attack[] = [
  {
    name: 'a pod sends from another pod’s address',
    run: (stage) => fromFrontend(stage, { address: true, mac: false }, 'SPOOFED_SOURCE_IP'),
  },
  {
    name: 'a pod sends from another pod’s MAC',
    run: (stage) => fromFrontend(stage, { address: false, mac: true }, 'SPOOFED_SOURCE_MAC'),
  },
  { name: 'a pod that no policy admits calls Redis', run: uninvited },
  { name: 'plaintext for a pod, put onto the underlay', run: plaintext },
  { name: 'an ESP packet is replayed', run: replayed },
  { name: 'an ESP packet is forged', run: forged },
  { name: 'a node asks the CA for a pod of another node', run: foreignCertificate },
];
