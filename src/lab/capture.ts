import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { LabError } from './error.ts';
import type { Lab } from './lab.ts';

export interface CaptureOptions {
  /** In pcap-filter(7)'s language; default: everything. */
  readonly filter?: string;
  /** Bytes kept of each frame; default: all. */
  readonly snapLength?: number;
}

/** What a capture saw. */
export interface Captured {
  /** One pcap file (link type Ethernet) for each host on the underlay. */
  readonly files: readonly Buffer[];
  /** Frames that came too fast to be kept: above zero, a count of what was seen proves nothing. */
  readonly lost: number;
}

interface Tap {
  readonly child: ChildProcess;
  readonly file: string;
  text: string;
}

const startTimeoutMs = 10_000;
let count = 0;

/**
 * Listens on the underlay: at the fabric's end of every host's cable, to what the host sends, so that each frame is seen
 * once and nobody can tell that it is.
 */
export class Capture {
  readonly #taps: readonly Tap[];
  readonly #directory: string;

  private constructor(taps: readonly Tap[], directory: string) {
    this.#taps = taps;
    this.#directory = directory;
  }

  /** @returns When every tap is listening. @throws {LabError} `ProcessFailed`, with what tcpdump says of the filter */
  static async start(lab: Lab, { filter = '', snapLength = 0 }: CaptureOptions = {}): Promise<Capture> {
    const { control, world, nodes, directory: labDirectory } = lab.plan;
    const directory = `${labDirectory}/capture-${process.pid}-${++count}`;
    mkdirSync(directory, { mode: 0o700 });
    const taps = [control, world, ...nodes].map(({ name }): Tap => {
      const file = `${directory}/${name}.pcap`;
      const flags = [
        '-i',
        name,
        '-Q',
        'in',
        '-n',
        '-U',
        '-s',
        String(snapLength),
        '-B',
        '16384',
        '-Z',
        'root',
        '-w',
        file,
      ];
      const [command = '', ...args] = lab.helperCommand('fabric', [
        'tcpdump',
        ...flags,
        ...(filter === '' ? [] : [filter]),
      ]);
      const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
      const tap: Tap = { child, file, text: '' };
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        tap.text += text;
      });
      return tap;
    });
    const capture = new Capture(taps, directory);
    try {
      await Promise.all(taps.map(listening));
    } catch (error) {
      await capture.stop();
      throw error;
    }
    return capture;
  }

  /** Ends it and gives what was seen. */
  async stop(): Promise<Captured> {
    await Promise.all(this.#taps.map(ended));
    const files = this.#taps.map(({ file }) => {
      try {
        return readFileSync(file);
      } catch {
        return Buffer.alloc(0);
      }
    });
    rmSync(this.#directory, { recursive: true, force: true });
    const lost = this.#taps.reduce(
      (sum, { text }) => sum + Number(/^(\d+) packets? dropped by kernel/m.exec(text)?.[1] ?? 0),
      0,
    );
    return { files: files.filter((file) => file.length > 0), lost };
  }
}

function listening(tap: Tap): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new LabError('ProcessFailed', `tcpdump does not listen: ${tap.text.trim()}`));
    const timer = setTimeout(fail, startTimeoutMs);
    const look = () => {
      if (!tap.text.includes('listening on')) return;
      clearTimeout(timer);
      resolve();
    };
    tap.child.stderr?.on('data', look);
    tap.child.once('exit', fail).once('error', fail);
  });
}

function ended({ child }: Tap): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return resolve();
    child.once('exit', () => resolve());
    child.kill('SIGINT');
  });
}
