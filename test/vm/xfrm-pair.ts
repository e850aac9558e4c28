/**
 * Run inside a guest: two namespaces, each with the kernel's ESP over a veth, talk through one pair of security
 * associations. Prints what was seen as JSON.
 */
import { spawnSync } from 'node:child_process';
import { openUdp } from '../../src/kernel/sockets.ts';
import { Xfrm } from '../../src/kernel/xfrm.ts';
import { parseIp } from '../../src/model/address.ts';
import { parsePrefix } from '../../src/model/prefix.ts';

const sh = (script: string) => {
  const { status, stdout, stderr } = spawnSync('sh', ['-ec', script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${script}\n${stderr}`);
  return stdout;
};

const [side] = process.argv.slice(2);
if (side === undefined) {
  sh('for m in esp4 esp6 xfrm_interface veth; do modprobe $m; done');
  sh(`ip netns add a; ip netns add b; ip link add v netns a type veth peer name v netns b
    for s in a:1:2 b:2:1; do n=\${s%%:*}; me=\${s#*:}; me=\${me%:*}; you=\${s##*:}
      ip -n $n addr add 172.30.0.$me/24 dev v; ip -n $n link set v up; ip -n $n link set lo up
      ip -n $n link add x0 type xfrm dev v if_id 7; ip -n $n link set x0 up mtu 1400
      ip -n $n addr add 10.244.$me.5/32 dev lo; ip -n $n -6 addr add fd00::$me/128 dev lo nodad
      ip -n $n route add 10.244.$you.5/32 dev x0 src 10.244.$me.5; ip -n $n -6 route add fd00::$you/128 dev x0 src fd00::$me
    done`);
  const children = ['a', 'b'].map(
    (n) => ['ip', 'netns', 'exec', n, process.execPath, import.meta.filename, n] as const,
  );
  const holders = children.map(([command, ...args]) => {
    const { spawn } = process.getBuiltinModule('node:child_process');
    return spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  });
  for (const holder of holders) await new Promise((ready) => holder.stdout.once('data', ready));
  const capture = sh(`ip netns exec b timeout 20 tcpdump -i v -c 3 -nn -l udp 2>/dev/null & sleep 2
    ip netns exec a ping -c 3 -i 0.2 -W 5 10.244.2.5; ip netns exec a ping -6 -c 2 -i 0.2 -W 5 fd00::2; wait`);
  const states = holders.map((holder) => {
    holder.kill('SIGTERM');
    return new Promise<string>((done) => {
      holder.stdout.once('data', (chunk: Buffer) => done(chunk.toString('utf8')));
    });
  });
  console.log(
    JSON.stringify({ capture, states: (await Promise.all(states)).map((text): unknown => JSON.parse(text)) }),
  );
  process.exit(0);
}

const me = side === 'a' ? 1 : 2;
const you = 3 - me;
const [mine, theirs] = [parseIp(`172.30.0.${me}`), parseIp(`172.30.0.${you}`)];
openUdp({ address: mine, port: 4500, espInUdp: true });
const xfrm = new Xfrm();
const key = (n: number) => Buffer.alloc(36, n);
const common = {
  requestId: 1,
  interfaceId: 7,
  encapsulation: { sourcePort: 4500, destinationPort: 4500 },
  replayWindow: 1024,
};
xfrm.addState({ ...common, source: theirs, destination: mine, spi: 0x1000 + me, keyAndSalt: key(me) });
xfrm.addState({
  ...common,
  source: mine,
  destination: theirs,
  spi: 0x1000 + you,
  keyAndSalt: key(you),
  hardBytes: 2 ** 40,
});
for (const [from, to] of [
  [`10.244.${me}.5/32`, `10.244.${you}.5/32`],
  [`fd00::${me}/128`, `fd00::${you}/128`],
] as const) {
  const [local, remote] = [parsePrefix(from), parsePrefix(to)];
  const policy = { interfaceId: 7, priority: 100 };
  xfrm.setPolicy({
    ...policy,
    direction: 'out',
    source: local,
    destination: remote,
    tunnel: { source: mine, destination: theirs, requestId: 1 },
  });
  for (const direction of ['in', 'forward'] as const)
    xfrm.setPolicy({
      ...policy,
      direction,
      source: remote,
      destination: local,
      tunnel: { source: theirs, destination: mine, requestId: 1 },
    });
}
process.once('SIGTERM', () => {
  const before = xfrm.states();
  xfrm.deleteState({ source: mine, destination: theirs, spi: 0x1000 + you });
  console.log(JSON.stringify({ before, after: xfrm.states().length }));
  process.exit(0);
});
setInterval(() => undefined, 1000);
console.log('ready');
