import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';

/*
 * Says exactly what became of every packet between two places while something happens: a steady stream of numbered datagrams
 * in each direction, and a long TCP transfer. Two programs (meter.c), one in each place.
 *
 *   const meter = await StreamMeter.between(a, b);
 *   await meter.go();
 *   … something happens …
 *   const { there, back, tcp } = await meter.finish();
 *   assert.equal(there.lost, 0);
 *
 * What this machine loses by itself is told apart: the meter's sockets have room for minutes of traffic and count what does
 * not fit all the same, and the queues that the kernel drops from when no processor comes round are watched.
 */

/** Where one of the two programs runs. */
export interface MeterEnd {
  readonly name: string;
  /** Its own address, of the same family as the other's. */
  readonly address: string;
  /** The command line that runs a program there, with every privilege. */
  readonly command: (program: readonly string[]) => Promise<readonly string[]> | readonly string[];
}

export interface MeterOptions {
  /** Datagrams a second, in each direction. Default 1000. */
  readonly rate?: number;
  /** Of payload. Default 200. */
  readonly bytes?: number;
  /** Bytes a second of the TCP transfer, at most. Default 1 MiB. */
  readonly tcpRate?: number;
  /** Default 7000; UDP and TCP. */
  readonly port?: number;
}

/** What became of one direction's datagrams. */
export interface DirectionReport {
  readonly sent: number;
  /** Different ones. */
  readonly received: number;
  readonly lost: number;
  /** Of the lost, those that this machine lost outside of Myelin, as far as its counters say. */
  readonly lostByHost: number;
  readonly doubled: number;
  /** Came after one that was sent later; `deepest` is by how many at most. */
  readonly overtaken: number;
  readonly deepest: number;
  /** Ranges of numbers that never came, the first sixteen. The last datagrams, if lost, are not among them. */
  readonly missing: readonly (readonly [from: number, to: number])[];
  /** The longest time between two arrivals, by the kernel's time stamps, and the number of the datagram that ended it. */
  readonly gapMs: number;
  readonly gapBefore: number;
  /** The longest time between two datagrams' sending: a gap cannot be blamed on the way that is no longer than this. */
  readonly sendGapMs: number;
  /** Datagrams that the sender's own kernel refused, and that were sent again. */
  readonly refused: number;
}

export interface TcpReport {
  /** `ended`: closed by both sides with every byte in its place. */
  readonly state: 'none' | 'open' | 'ended' | 'broken';
  readonly sent: number;
  readonly received: number;
  readonly failure: string;
  readonly retransmits: number;
  /** The longest time without a byte. */
  readonly gapMs: number;
}

export interface MeterReport {
  /** From the first place to the second. */
  readonly there: DirectionReport;
  readonly back: DirectionReport;
  readonly tcp: TcpReport;
}

const endSchema = z.object({
  sent: z.number(),
  sendFailures: z.number(),
  sendError: z.string(),
  sendGapMs: z.number(),
  received: z.number(),
  doubled: z.number(),
  overtaken: z.number(),
  deepest: z.number(),
  highest: z.number(),
  foreign: z.number(),
  overflow: z.number(),
  gapMs: z.number(),
  gapBefore: z.number(),
  lastAt: z.number(),
  missing: z.array(z.tuple([z.number(), z.number()])),
  tcp: z.object({
    state: z.enum(['none', 'open', 'ended', 'broken']),
    bytes: z.number(),
    gapMs: z.number(),
    retransmits: z.number(),
    failure: z.string(),
  }),
});
type EndReport = z.infer<typeof endSchema>;

const source = join(import.meta.dirname, 'meter.c');
const binary = resolve(import.meta.dirname, '../../build/test/meter');

/** Compiles the program unless it is there and newer than its source. @returns Its path. */
function build(): string {
  const age = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (age(binary) > age(source)) return binary;
  mkdirSync(join(binary, '..'), { recursive: true });
  const fresh = `${binary}.${process.pid}`;
  const flags = ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-D_GNU_SOURCE'];
  execFileSync('clang-14', [...flags, '-o', fresh, source, '-lpthread']);
  renameSync(fresh, binary);
  return binary;
}

/** What the kernel dropped before any network stack saw it: the second column, for each processor (all namespaces have one). */
function softnetDrops(): number {
  const lines = readFileSync('/proc/net/softnet_stat', 'utf8').trim().split('\n');
  return lines.reduce((sum, line) => sum + Number.parseInt(line.split(' ')[1] ?? '0', 16), 0);
}

/** One of the two programs. */
class End {
  readonly #child: ChildProcess;
  readonly #answers: { resolve(line: string): void; reject(error: Error): void }[] = [];
  readonly name: string;
  last: EndReport | undefined;

  private constructor(child: ChildProcess, name: string) {
    this.#child = child;
    this.name = name;
    if (child.stdout !== null)
      createInterface({ input: child.stdout }).on('line', (line) => this.#answers.shift()?.resolve(line));
    child.once('exit', (code, signal) => {
      for (const { reject } of this.#answers.splice(0))
        reject(new Error(`the meter in ${name} ended with ${signal ?? code}`));
    });
    child.stdin?.on('error', () => {});
  }

  static async start({ name, command }: MeterEnd, program: readonly string[]): Promise<End> {
    const [file = '', ...args] = await command(program);
    const end = new End(spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] }), name);
    await end.#answer();
    return end;
  }

  async ask(what: 'go' | 'report' | 'stop'): Promise<EndReport> {
    this.#child.stdin?.write(`${what}\n`);
    return await this.#answer();
  }

  /** Ends the program. */
  quit(): void {
    this.#child.stdin?.end('quit\n');
  }

  async #answer(): Promise<EndReport> {
    const line = await new Promise<string>((resolve, reject) => this.#answers.push({ resolve, reject }));
    this.last = endSchema.parse(JSON.parse(line));
    return this.last;
  }
}

/** Both programs, and what they say together. */
export class StreamMeter {
  readonly #ends: readonly [End, End];
  readonly #softnet: number;

  private constructor(ends: readonly [End, End]) {
    this.#ends = ends;
    this.#softnet = softnetDrops();
  }

  /** Starts both programs; nothing is sent before {@link go}. */
  static async between(a: MeterEnd, b: MeterEnd, options: MeterOptions = {}): Promise<StreamMeter> {
    const { rate = 1000, bytes = 200, tcpRate = 1 << 20, port = 7000 } = options;
    const program = build();
    const line = (own: MeterEnd, other: MeterEnd, tcp: 'connect' | 'accept') => [
      program,
      ...['--local', own.address, '--peer', other.address, '--port', `${port}`],
      ...['--rate', `${rate}`, '--bytes', `${bytes}`, '--tcp', tcp, '--tcp-rate', `${tcpRate}`],
    ];
    // The one who is asked listens before it says that it is there.
    const second = await End.start(b, line(b, a, 'accept'));
    try {
      return new StreamMeter([await End.start(a, line(a, b, 'connect')), second]);
    } catch (error) {
      second.quit();
      throw error;
    }
  }

  /** Both begin to send, as nearly at once as two processes can. */
  async go(): Promise<void> {
    await Promise.all(this.#ends.map((end) => end.ask('go')));
  }

  /** How it stands. What is on its way counts as lost in this report. */
  async report(): Promise<MeterReport> {
    const [a, b] = this.#ends;
    const [one, two] = [await a.ask('report'), await b.ask('report')];
    return this.#compare(one, two);
  }

  /** Waits until so many more datagrams have come, in each direction. @throws after `timeoutMs` */
  async progress(datagrams: number, timeoutMs = 30_000): Promise<MeterReport> {
    const { there, back } = await this.report();
    for (const end = Date.now() + timeoutMs; ; await sleep(20)) {
      const now = await this.report();
      const come = Math.min(now.there.received - there.received, now.back.received - back.received);
      if (come >= datagrams) return now;
      if (Date.now() > end)
        throw new Error(`only ${come} datagrams in ${timeoutMs} ms: ${JSON.stringify({ was: { there, back }, now })}`);
    }
  }

  /** Sends no more, waits for what is on its way, and ends both programs. */
  async finish(): Promise<MeterReport> {
    try {
      await Promise.all(this.#ends.map((end) => end.ask('stop')));
      return await this.#settled();
    } finally {
      this.quit();
    }
  }

  /** Ends both programs, whatever they are doing. */
  quit(): void {
    for (const end of this.#ends) end.quit();
  }

  /** Until all has come, or nothing more has for so long. */
  async #settled(): Promise<MeterReport> {
    let last = await this.report();
    for (let quiet = 0; ; ) {
      if (last.there.lost <= 0 && last.back.lost <= 0 && last.tcp.state !== 'open') return last;
      await sleep(50);
      const now = await this.report();
      const sum = ({ there, back, tcp }: MeterReport) => there.received + back.received + tcp.received;
      quiet = sum(now) === sum(last) ? quiet + 50 : 0;
      last = now;
      // A transfer whose last segments did not fit the path goes on with a timeout, which doubles each time (RFC 6298).
      if (quiet >= (now.tcp.state === 'open' ? 15_000 : 2000)) return now;
    }
  }

  #compare(a: EndReport, b: EndReport): MeterReport {
    const softnet = softnetDrops() - this.#softnet;
    const direction = (from: EndReport, to: EndReport): DirectionReport => {
      const lost = Math.max(0, from.sent - to.received);
      return {
        sent: from.sent,
        received: to.received,
        lost,
        lostByHost: Math.min(lost, to.overflow + softnet),
        doubled: to.doubled,
        overtaken: to.overtaken,
        deepest: to.deepest,
        missing: to.missing,
        gapMs: to.gapMs,
        gapBefore: to.gapBefore,
        sendGapMs: from.sendGapMs,
        refused: from.sendFailures,
      };
    };
    const broken = a.tcp.state === 'broken' || b.tcp.state === 'broken';
    return {
      there: direction(a, b),
      back: direction(b, a),
      tcp: {
        state: broken
          ? 'broken'
          : a.tcp.state === 'ended' && b.tcp.state === 'ended'
            ? 'ended'
            : a.tcp.state === 'none'
              ? 'none'
              : 'open',
        sent: a.tcp.bytes,
        received: b.tcp.bytes,
        failure: a.tcp.failure || b.tcp.failure,
        retransmits: a.tcp.retransmits,
        gapMs: b.tcp.gapMs,
      },
    };
  }
}

/** A place that is a network namespace. */
export function inNamespace(name: string, netns: string, address: string): MeterEnd {
  return { name, address, command: (program) => ['nsenter', `--net=${netns}`, '--', ...program] };
}
