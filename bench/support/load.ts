import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { run } from '../../src/kernel/command.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { startDaemon, waitUntil } from './daemon.ts';

export interface Ends {
  /** Network namespace paths. */
  readonly client: string;
  readonly server: string;
  readonly address: IpAddress;
}

const iperfResult = z.object({
  end: z.object({ sum_received: z.object({ bits_per_second: z.number() }) }),
});

export interface TcpLoad {
  readonly seconds: number;
  readonly streams: number;
  /** Of the server, where several run beside each other. */
  readonly port?: number;
  /** The client's own address, where it has several. */
  readonly from?: IpAddress;
}

/** @returns What arrived, in Mbit/s, over `streams` TCP connections for `seconds`. */
export async function tcpThroughput(ends: Ends, options: TcpLoad): Promise<number> {
  const port = ['--port', `${options.port ?? 5201}`];
  const server = startDaemon('iperf3', ['--server', '--one-off', '--forceflush', ...port], { netns: ends.server });
  try {
    await waitUntil('iperf3 listens', 5, () => server.output().includes('Server listening'));
    const { stdout } = await run(
      'iperf3',
      [
        '--client',
        ends.address,
        '--time',
        String(options.seconds),
        '--parallel',
        String(options.streams),
        '--omit',
        '1',
        '--json',
        ...port,
        ...(options.from === undefined ? [] : ['--bind', options.from]),
      ],
      { netns: ends.client, timeout: (options.seconds + 20) * 1000 },
    );
    return iperfResult.parse(JSON.parse(stdout)).end.sum_received.bits_per_second / 1e6;
  } finally {
    await server.close();
  }
}

const flood = fileURLToPath(new URL('../../build/native/flood', import.meta.url));
const [lowestRate, stepUp, stepMs] = [20_000, 1.2, 700];

/**
 * One sender that offers more and more until less arrives.
 * @param options.length Of the payload.
 * @param options.from The rate to begin with, in datagrams a second.
 * @returns The most datagrams a second that the receiver's socket gave out, whatever was sent.
 */
export async function udpRate(ends: Ends, options: { length: number; from?: number }): Promise<number> {
  const port = '11112';
  const receiver = startDaemon(flood, ['receive', port], { netns: ends.server });
  const received = async () => {
    const { stdout } = await run('cat', ['/proc/net/snmp'], { netns: ends.server });
    const [names = [], values = []] = stdout
      .split('\n')
      .filter((line) => line.startsWith('Udp:'))
      .map((line) => line.split(' '));
    return Number(values[names.indexOf('InDatagrams')]);
  };
  const offer = async (rate: number) => {
    const args = ['send', ends.address, port, `${options.length}`, `${Math.round(rate)}`, `${stepMs}`];
    const before = await received();
    await run(flood, args, { netns: ends.client });
    await new Promise((wait) => setTimeout(wait, 100)); // what is still under way was sent in this step
    return ((await received()) - before) / (stepMs / 1000);
  };
  try {
    await waitUntil('the receiver is ready', 5, () => receiver.output().includes('ready'));
    let best = 0;
    let poor = 0; // steps one after the other in which little arrived: one may be the machine's doing
    for (
      let rate = options.from ?? lowestRate;
      rate < 3 * Math.max(best, options.from ?? lowestRate) && poor < 3;
      rate *= stepUp
    ) {
      const arrived = await offer(rate);
      best = Math.max(best, arrived);
      poor = arrived < 0.5 * best ? poor + 1 : 0;
    }
    return best;
  } finally {
    await receiver.close();
  }
}

/** @returns The median round trip of small TCP requests, one at a time, in microseconds. */
export async function tcpRoundTrip(ends: Ends, options: { seconds: number }): Promise<number> {
  const server = startDaemon('sockperf', ['server', '--tcp', '-i', ends.address, '-p', '11111'], {
    netns: ends.server,
  });
  try {
    await waitUntil('sockperf listens', 5, () => /listen|server waiting/i.test(server.output()));
    const { stdout } = await run(
      'sockperf',
      [
        'ping-pong',
        '--tcp',
        '-i',
        ends.address,
        '-p',
        '11111',
        '-t',
        String(options.seconds),
        '--msg-size',
        '64',
        '--full-rtt',
      ],
      { netns: ends.client, timeout: (options.seconds + 20) * 1000 },
    );
    const median = /percentile 50\.000 =\s+([\d.]+)/.exec(stdout)?.[1];
    if (median === undefined) throw new Error(`sockperf said no median:\n${stdout}`);
    return Number(median);
  } finally {
    await server.close();
  }
}
