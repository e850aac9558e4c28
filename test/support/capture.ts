import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** tcpdump on a device of a namespace, into a file. */
export class Capture {
  readonly file: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;

  private constructor(file: string, child: ChildProcess) {
    this.file = file;
    this.#child = child;
    this.#ended = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /** @returns When it captures. */
  static async start(netns: string, device: string, file: string): Promise<Capture> {
    // Root keeps the file where it is: tcpdump would else change to a user who may not write there.
    const args = [`--net=${netns}`, 'tcpdump', '-i', device, '-U', '-Z', 'root', '--immediate-mode', '-B', '16384'];
    const child = spawn('nsenter', [...args, '-w', file], { stdio: ['ignore', 'ignore', 'pipe'] });
    const capture = new Capture(file, child);
    let said = '';
    await new Promise<void>((resolve, reject) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
        if (said.includes('listening on')) resolve();
      });
      child.once('close', () => reject(new Error(`tcpdump ended: ${said}`)));
    });
    return capture;
  }

  /** Ends it. @returns The frames that were seen, from the Ethernet header on. */
  async stop(): Promise<Buffer[]> {
    this.#child.kill('SIGINT');
    await this.#ended;
    return readPcap(readFileSync(this.file));
  }
}

/** The packets of a pcap file of this machine's byte order. */
function readPcap(file: Buffer): Buffer[] {
  const packets: Buffer[] = [];
  for (let at = 24; at + 16 <= file.length; ) {
    const length = file.readUInt32LE(at + 8);
    packets.push(file.subarray(at + 16, at + 16 + length));
    at += 16 + length;
  }
  return packets;
}
