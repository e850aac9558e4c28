import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import { frame, ip, udp } from '../support/packet.ts';
import { objectDir } from './node.ts';

/** As native/steer.h has it. */
const lane = (local: number, remote: number) => Math.imul((local << 8) | remote, 0x9e37_79b1) >>> 24;

test('the queue of a packet is that of the thread which the engine gives its pair to, in both families', () => {
  using object = BpfObject.open(join(objectDir, 'steer.bpf.o')).load();
  const program = object.program('steer_tun');
  // A test run takes the link header off before a socket filter sees the packet.
  const link = { source: parseMac('02:00:00:00:00:01'), destination: parseMac('02:00:00:00:00:02') };
  const seen = new Set<number>();
  for (const [a, b] of [
    [2, 3],
    [3, 2],
    [200, 17],
    [255, 254],
    [9, 9],
    [1, 128],
  ] as const) {
    const pairs = [
      [`10.244.7.${a}`, `10.244.9.${b}`],
      [`fd00:7::${a.toString(16)}`, `fd00:9::${b.toString(16)}`],
    ] as const;
    for (const [source, destination] of pairs) {
      const packet = ip(
        { source: parseIp(source), destination: parseIp(destination) },
        udp({ source: 1, destination: 2 }),
      );
      assert.equal(program.testRun({ data: frame(link, packet) }).retval, lane(a, b), `${source} to ${destination}`);
    }
    seen.add(lane(a, b) % 2);
  }
  assert.equal(seen.size, 2);
});
