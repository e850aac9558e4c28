/**
 * Run inside a guest with Debian's oldest supported kernel: two engines talk to each other, then one of them to the kernel's
 * own ESP, which is set up by iproute2 and so knows nothing of this project. Prints what was seen as JSON.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { run } from '../../src/kernel/command.ts';
import { ipBatch } from '../../src/kernel/ip.ts';
import { openUdp } from '../../src/kernel/sockets.ts';
import { parseIp } from '../../src/model/address.ts';
import { EngineLab, type EngineNode } from '../support/engine-lab.ts';

if (process.argv[2] === 'hold') {
  // The socket through which the kernel gets ESP out of UDP: it has to stay open.
  openUdp({ address: parseIp('0.0.0.0'), port: 4500, espInUdp: true });
  console.log('open');
  await new Promise(() => setInterval(() => undefined, 1000));
}

async function pings(node: EngineNode, addresses: readonly string[], size: number): Promise<number[]> {
  const answers: number[] = [];
  for (const address of addresses) {
    const args = ['-c', '3', '-i', '0.2', '-W', '10', '-s', `${size}`, address];
    const { stdout } = await run('ping', args, { netns: node.pod });
    answers.push(Number(/(\d+) received/.exec(stdout)?.[1]));
  }
  return answers;
}

/** @returns Whether 4 MiB of TCP arrived as they were sent. */
async function bulk(from: EngineNode, to: EngineNode, address: string): Promise<boolean> {
  const program = new URL('../support/tcp-stream.ts', import.meta.url).pathname;
  const args = [`--net=${to.pod}`, process.execPath, program, 'serve', '7001'];
  const server = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'ignore'] });
  let received = '';
  server.stdout.setEncoding('utf8').on('data', (text: string) => {
    received += text;
  });
  await once(server.stdout, 'data');
  const closed = once(server, 'close');
  const sent = await run(process.execPath, [program, 'send', address, '7001', '4'], {
    netns: from.pod,
    timeout: 60_000,
  });
  await closed;
  return received === `listening\n${sent.stdout}`;
}

const lab = await EngineLab.open();
const [a, b] = lab.nodes;
const seen: Record<string, unknown> = { engine: { ...a.driver.engine, instance: undefined } };
await lab.connect();
seen.engines = {
  pings: await pings(a, b.addresses, 56),
  bulk: [await bulk(b, a, a.addresses[1])],
};

// Node 2 changes over to the kernel.
await b.driver.shutdown();
b.enginePid = 0;
for (const sa of await a.driver.list()) await a.driver.remove(sa);
const holder = spawn('nsenter', [`--net=${b.netns}`, process.execPath, import.meta.filename, 'hold'], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
await once(holder.stdout, 'data');
const [forward, back] = [lab.makeSa(a, 0x5001), lab.makeSa(b, 0x5002)];
const state = ({ from, to, key, salt, outbound }: typeof forward) =>
  `xfrm state add src ${from.underlay} dst ${to.underlay} proto esp spi ${outbound.spi} mode tunnel reqid 1 ` +
  `replay-window 1024 flag esn af-unspec aead rfc4106(gcm(aes)) 0x${Buffer.concat([key, salt]).toString('hex')} 128 ` +
  'encap espinudp 4500 4500 0.0.0.0';
const policies = [0, 1].flatMap((family) => {
  const [mine, theirs] = [b.addresses[family], a.addresses[family]];
  const template = (from: EngineNode, to: EngineNode) =>
    `tmpl src ${from.underlay} dst ${to.underlay} proto esp reqid 1 mode tunnel`;
  return [
    `xfrm policy add src ${mine} dst ${theirs} dir out ${template(b, a)}`,
    `xfrm policy add src ${theirs} dst ${mine} dir fwd ${template(a, b)}`,
    `xfrm policy add src ${theirs} dst ${mine} dir in ${template(a, b)}`,
  ];
});
await ipBatch([state(forward), state(back), ...policies, 'link del myelin0'], { netns: b.netns });
// A route is looked up before the policy; where it leads does not matter.
const routes = ['route add 10.251.1.0/24 dev eth0', 'route add fd00:251:1::/64 dev eth0'];
await ipBatch(routes, { netns: b.netns });
await a.driver.installInbound(back.inbound);
await a.driver.installOutbound(forward.outbound);
seen.kernel = {
  pings: [...(await pings(a, b.addresses, 56)), ...(await pings(b, a.addresses, 1000))],
  bulk: [await bulk(a, b, b.addresses[0]), await bulk(b, a, a.addresses[0])],
};
const { drops, details } = await a.driver.statistics();
seen.drops = drops;
seen.details = details;
const { stdout: states } = await run('ip', ['-s', 'xfrm', 'state'], { netns: b.netns });
seen.esn = states.includes('flag') && states.includes('esn');
holder.kill();
await lab.close();
console.log(JSON.stringify(seen));
process.exit(0);
