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

/** @returns What arrived, in Mbit/s, over `streams` TCP connections for `seconds`. */
export async function tcpThroughput(ends: Ends, options: { seconds: number; streams: number }): Promise<number> {
  const server = startDaemon('iperf3', ['--server', '--one-off', '--forceflush'], { netns: ends.server });
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
      ],
      { netns: ends.client, timeout: (options.seconds + 20) * 1000 },
    );
    return iperfResult.parse(JSON.parse(stdout)).end.sum_received.bits_per_second / 1e6;
  } finally {
    await server.close();
  }
}

/**
 * One sender as fast as it can.
 * @param options.length Of the payload.
 * @returns Datagrams a second that the receiver's socket gave out, whatever was sent.
 */
export async function udpRate(ends: Ends, options: { seconds: number; length: number }): Promise<number> {
  const server = startDaemon('iperf3', ['--server', '--one-off', '--forceflush'], { netns: ends.server });
  const received = async () => {
    const { stdout } = await run('cat', ['/proc/net/snmp'], { netns: ends.server });
    const [names = [], values = []] = stdout
      .split('\n')
      .filter((line) => line.startsWith('Udp:'))
      .map((line) => line.split(' '));
    return Number(values[names.indexOf('InDatagrams')]);
  };
  try {
    await waitUntil('iperf3 listens', 5, () => server.output().includes('Server listening'));
    const before = await received();
    const client = run(
      'iperf3',
      [
        ...['--client', ends.address, '--udp', '--bitrate', '0', '--length', String(options.length)],
        ...['--time', String(options.seconds + 2)],
      ],
      { netns: ends.client, timeout: (options.seconds + 20) * 1000 },
    );
    // Counted in the middle of the load, by this machine's own clock.
    await waitUntil('datagrams arrive', 5, async () => (await received()) > before + 1000);
    const [from, start] = [await received(), performance.now()];
    await new Promise((wait) => setTimeout(wait, options.seconds * 1000));
    const [to, end] = [await received(), performance.now()];
    await client;
    return ((to - from) / (end - start)) * 1000;
  } finally {
    await server.close();
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
