import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
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
  /** A pcap file, link type Ethernet. */
  readonly file: Buffer;
  /** Frames that came too fast to be kept: above zero, a count of what was seen proves nothing. */
  readonly lost: number;
}

const startTimeoutMs = 10_000;
let count = 0;

/**
 * Listens on the underlay: at its bridge, which shows every frame once to whoever listens there, whoever it is for.
 */
export class Capture {
  readonly #child: ChildProcess;
  readonly #file: string;
  #text = '';

  private constructor(child: ChildProcess, file: string) {
    this.#child = child;
    this.#file = file;
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text;
    });
  }

  /** @returns When it is listening. @throws {LabError} `ProcessFailed`, with what tcpdump says of the filter */
  static async start(lab: Lab, { filter = '', snapLength = 0 }: CaptureOptions = {}): Promise<Capture> {
    const { directory, fabric } = lab.plan;
    const file = `${directory}/capture-${process.pid}-${++count}.pcap`;
    // Buffers of 16 MiB: a burst of a transfer at full speed is still a count that can be believed.
    // Without immediate mode, what came in the last second would still be with the kernel when the capture is stopped.
    const mode = ['-n', '--immediate-mode', '-B', '16384', '-Z', 'root'];
    const flags = ['-i', fabric.bridge, ...mode, '-s', String(snapLength), '-w', file];
    const tcpdump = ['tcpdump', ...flags, ...(filter === '' ? [] : [filter])];
    const [command = '', ...args] = lab.helperCommand('fabric', tcpdump);
    const capture = new Capture(spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] }), file);
    try {
      await capture.#listening();
    } catch (error) {
      await capture.stop();
      throw error;
    }
    return capture;
  }

  /** Ends it, with everything that the kernel still holds, and gives what was seen. Once. */
  async stop(): Promise<Captured> {
    const child = this.#child;
    if (child.exitCode === null && child.signalCode === null && child.pid !== undefined)
      await new Promise<void>((resolve) => {
        child.once('exit', () => resolve());
        child.kill('SIGINT');
      });
    const lost = Number(/^(\d+) packets? dropped by kernel/m.exec(this.#text)?.[1] ?? 0);
    let file = Buffer.alloc(0);
    try {
      file = readFileSync(this.#file);
    } catch {
      // It never came to listen, or this is the second time.
    }
    rmSync(this.#file, { force: true });
    return { file, lost };
  }

  #listening(): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = () => reject(new LabError('ProcessFailed', `tcpdump does not listen: ${this.#text.trim()}`));
      const timer = setTimeout(fail, startTimeoutMs);
      this.#child.stderr?.on('data', () => {
        if (!this.#text.includes('listening on')) return;
        clearTimeout(timer);
        resolve();
      });
      this.#child.once('exit', fail).once('error', fail);
    });
  }
}
