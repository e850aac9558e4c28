import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/kernel/command.ts';
import { ipFromBytes } from '../../src/model/address.ts';
import type { DropReport, TunnelDropReason } from '../../src/tunnel/driver.ts';
import { Capture } from '../support/capture.ts';
import { EngineLab } from '../support/engine-lab.ts';
import { openEsp, sealEsp } from '../support/esp.ts';
import { ip, ping as pingOf, udp } from '../support/packet.ts';

const injector = fileURLToPath(new URL('../support/inject-udp.ts', import.meta.url));
const spi = 0x2001;

/** What stands in a frame of the underlay. */
function datagram(frame: Buffer): { protocol: number; ports: [number, number]; payload: Buffer } | undefined {
  if (frame.readUInt16BE(12) !== 0x0800) return undefined;
  const header = ((frame[14] ?? 0) & 15) * 4;
  const at = 14 + header;
  return {
    protocol: frame[23] ?? 0,
    ports: [frame.readUInt16BE(at), frame.readUInt16BE(at + 2)],
    payload: frame.subarray(at + 8, 14 + frame.readUInt16BE(16)),
  };
}

/** A GSO message shows up as one frame on a veth; its packets have the length that the next SPI says. */
function espPackets(payload: Buffer): Buffer[] {
  const packets: Buffer[] = [];
  const marker = payload.subarray(0, 4);
  for (let at = 0; at < payload.length; ) {
    const next = payload.indexOf(marker, at + 36);
    const end = next < 0 ? payload.length : next;
    packets.push(payload.subarray(at, end));
    at = end;
  }
  return packets;
}

describe('the wire between two engines', () => {
  let lab: EngineLab;
  let forward: ReturnType<EngineLab['makeSa']>;
  before(async () => {
    lab = await EngineLab.open();
    const [a, b] = lab.nodes;
    forward = lab.makeSa(a, spi);
    const back = lab.makeSa(b, 0x2002);
    for (const sa of [forward, back]) await sa.to.driver.installInbound(sa.inbound);
    for (const sa of [forward, back]) await sa.from.driver.installOutbound(sa.outbound);
  });
  after(() => lab.close());

  async function inject(packets: Uint8Array[]): Promise<void> {
    const [a, b] = lab.nodes;
    const input = packets.map((packet) => Buffer.from(packet).toString('hex')).join('\n');
    await run(process.execPath, [injector, b.underlay, '4500'], { netns: a.netns, input });
  }

  /** Waits until node 2 has counted as many drops of each reason, which it has to, exactly. */
  async function expectDrops(expected: Partial<Record<TunnelDropReason, number>>): Promise<void> {
    const [, b] = lab.nodes;
    const interesting = async () => {
      const { drops } = await b.driver.statistics();
      return Object.fromEntries(Object.entries(drops).filter(([reason]) => reason !== 'TUN_NOT_UNICAST'));
    };
    for (let i = 0; i < 100 && JSON.stringify(await interesting()) !== JSON.stringify(expected); i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(await interesting(), expected);
  }

  test('carries ESP in UDP on port 4500 and nothing else, which opens only with the key', async () => {
    const [a, b] = lab.nodes;
    const marker = 'nothing of this may be read on the way';
    const capture = await Capture.start(a.netns, 'eth0', `${lab.directory}/wire.pcap`);
    const pattern = Buffer.from(marker).toString('hex').slice(0, 32);
    await run('ping', ['-c', '5', '-i', '0.01', '-s', '500', '-p', pattern, b.addresses[0]], { netns: a.pod });
    await run('ping', ['-c', '5', '-i', '0.01', '-s', '500', '-p', pattern, b.addresses[1]], { netns: a.pod });
    const frames = await capture.stop();
    const seen = { esp: 0, opened: 0, sources: new Set<string>() };
    for (const frame of frames) {
      assert.equal(frame.includes(Buffer.from(pattern, 'hex')), false, 'plaintext on the underlay');
      const found = datagram(frame);
      if (found === undefined) {
        // ARP, and what the nodes' kernels say to the link: ND and MLD.
        const ownLink6 = frame.readUInt16BE(12) === 0x86dd && (frame[38] ?? 0) >= 0xfe;
        assert.ok(frame.readUInt16BE(12) === 0x0806 || ownLink6, frame.toString('hex'));
        continue;
      }
      assert.deepEqual([found.protocol, ...found.ports], [17, 4500, 4500]);
      assert.equal(frame.readUInt16BE(20) & 0x4000, 0x4000, 'outer packets are not to be fragmented');
      for (const packet of espPackets(found.payload)) {
        seen.esp++;
        if (packet.readUInt32BE(0) !== spi) continue;
        const { inner, nextHeader } = openEsp(packet, forward);
        assert.equal(nextHeader, (inner[0] ?? 0) >> 4 === 4 ? 4 : 41);
        seen.sources.add(ipFromBytes(nextHeader === 4 ? inner.subarray(12, 16) : inner.subarray(8, 24)));
        seen.opened++;
      }
    }
    assert.equal(seen.opened, 10);
    assert.equal(seen.esp, 20);
    assert.deepEqual([...seen.sources].sort(), [...a.addresses].sort());
  });

  test('tshark reads it, given the key', async () => {
    const secret = Buffer.concat([forward.key, forward.salt]).toString('hex');
    const algorithm = 'AES-GCM with 16 octet ICV [RFC4106]';
    const sa = ['IPv4', '*', '*', `0x${spi.toString(16).padStart(8, '0')}`, algorithm, `0x${secret}`, 'NULL', ''];
    const uat = sa.map((field) => JSON.stringify(field)).join(',');
    const { stdout } = await run('tshark', [
      ...['-r', `${lab.directory}/wire.pcap`, '-Y', 'icmp.type == 8 || icmpv6.type == 128'],
      ...['-o', 'esp.enable_encryption_decode:TRUE', '-o', `uat:esp_sa:${uat}`],
      ...['-T', 'fields', '-e', 'ip.src', '-e', 'ipv6.src', '-e', 'esp.sequence'],
    ]);
    const lines = stdout.trim().split('\n');
    assert.equal(lines.length, 10, stdout);
    const [a] = lab.nodes;
    assert.equal(lines.filter((line) => line.includes(a.addresses[0])).length, 5, stdout);
    assert.equal(lines.filter((line) => line.includes(a.addresses[1])).length, 5, stdout);
  });

  test('replayed, forged, truncated, foreign and contradictory packets are dropped by their reasons', async () => {
    const [a, b] = lab.nodes;
    const reports: DropReport[] = [];
    const unknown: { spi: number; from: { address: string } }[] = [];
    b.driver.on('drop', (report) => reports.push(report));
    b.driver.on('unknownSpi', (report) => unknown.push(report));
    const ends = { source: a.addresses[0], destination: b.addresses[0] };
    const inner = ip(ends, udp({ source: 1, destination: 2 }));
    const seal = (sequence: bigint, extra: Partial<Parameters<typeof sealEsp>[0]> = {}) =>
      sealEsp({ spi, sequence, inner, key: forward.key, salt: forward.salt, ...extra });
    const good = seal(1000n);
    await inject([good]);
    const flipped = Buffer.from(seal(1001n));
    flipped.writeUInt8(flipped.readUInt8(40) ^ 1, 40);
    const foreign = ip(
      { ...ends, source: b.addresses[0], destination: a.addresses[0] },
      udp({ source: 1, destination: 2 }),
    );
    const longer = Buffer.from(inner);
    longer.writeUInt16BE(inner.length + 4, 2);
    await inject([
      good, // seen
      flipped,
      seal(1002n).subarray(0, 48), // cut short
      seal(1003n).subarray(0, 30),
      seal(1004n).subarray(0, 45),
      Buffer.from(''),
      Buffer.from('00000000'.repeat(20), 'hex'), // IKE
      Buffer.from('ff', 'hex'), // a keepalive, which is no drop
      seal(1005n, { spi: 0x7777_7777 }),
      seal(1006n, { inner: foreign }),
      seal(1007n, { inner: longer }),
      seal(1008n, { nextHeader: 41 }),
      seal(1009n, { nextHeader: 6 }),
      seal(1010n, { nextHeader: 59 }),
    ]);
    await expectDrops({
      UDP_TOO_SHORT: 2,
      NON_ESP: 1,
      UNKNOWN_SPI: 1,
      REPLAYED: 1,
      AUTHENTICATION: 2,
      BAD_LENGTH: 1,
      BAD_NEXT_HEADER: 2,
      BAD_INNER: 1,
      SELECTOR: 1,
      DUMMY: 1,
    });
    // None of that closed the window; far ahead, then far behind it, does.
    await inject([seal(1001n), seal(100_000n), seal(1002n)]);
    const before = (await b.driver.statistics()).drops;
    assert.equal(before.AUTHENTICATION, 2);
    for (let i = 0; i < 100 && (await b.driver.statistics()).drops.BEHIND_WINDOW !== 1; i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal((await b.driver.statistics()).drops.BEHIND_WINDOW, 1);
    const [sa] = (await b.driver.list()).filter((one) => one.direction === 'in');
    assert.equal(sa?.statistics.sequence, 100_000);
    assert.equal(sa?.statistics.drops.REPLAYED, 1);
    assert.deepEqual(
      unknown.map((report) => [report.spi, report.from.address]),
      [[0x7777_7777, a.underlay]],
    );
    const seen = new Set(reports.map((report) => report.reason));
    for (const reason of ['REPLAYED', 'AUTHENTICATION', 'SELECTOR'] as const) assert.ok(seen.has(reason), reason);
    const forged = reports.find((report) => report.reason === 'AUTHENTICATION');
    assert.deepEqual([forged?.spi, forged?.from?.address], [spi, a.underlay]);
  });

  test('what a second implementation seals is delivered, however it pads', async () => {
    const [a, b] = lab.nodes;
    const capture = await Capture.start(b.pod, 'eth0', `${lab.directory}/pod.pcap`);
    const ends = { source: a.addresses[0], destination: b.addresses[0] };
    const request = ip(ends, pingOf({ id: 77 }));
    for (let sequence = 200_000n; sequence < 200_005n; sequence++)
      await inject([
        sealEsp({
          spi,
          sequence,
          inner: request,
          key: forward.key,
          salt: forward.salt,
          padding: Number(sequence % 5n) * 4 + 2,
        }),
      ]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const frames = await capture.stop();
    const requests = frames.filter((frame) => frame.readUInt16BE(12) === 0x0800 && frame[23] === 1 && frame[34] === 8);
    assert.equal(requests.length, 5);
    for (const frame of requests)
      assert.deepEqual(frame.subarray(14 + 12, 14 + 20), Buffer.from(request).subarray(12, 20));
  });
});
