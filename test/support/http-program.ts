import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/*
 * Both ends of raw HTTP, in pods: see http-talk.ts.
 *
 *   http-program.ts serve PORT    answers `METHOD URL LENGTH` (of the body); prints each request that it gets. Of
 *                                 `…/big/N` the answer has N bytes, and `written` is printed when the kernel has them all
 *   http-program.ts talk          a command a line: JSON of a Talk, answered by JSON of a Heard
 */

/** What to say on a connection. */
export interface Talk {
  /** Of a connection that stays; without, one for this command only. */
  readonly name?: string;
  readonly host: string;
  readonly port: number;
  /** One character for each byte; each part is a segment of its own. */
  readonly parts: readonly string[];
  /** How many answers to wait for, by their status lines. */
  readonly answers: number;
  /** Milliseconds to wait for them, or for the end. */
  readonly patience: number;
  /** Waits for this text instead. */
  readonly until?: string;
  /** Leaves what comes unread, until the next command about the connection. */
  readonly deaf?: boolean;
}

/** What came back, and how the connection stands. */
export interface Heard {
  readonly text: string;
  readonly state: 'open' | 'ended' | 'reset' | 'refused';
}

function serve(port: number): void {
  const server = createServer((request, response) => {
    let length = 0;
    request.on('data', (data: Buffer) => {
      length += data.length;
    });
    request.on('end', () => {
      console.log(`${request.method} ${request.url} ${length}`);
      const text = `${request.method} ${request.url} ${length}\n`;
      if (request.url?.startsWith('/chunked') === true) {
        response.write(text.slice(0, 3));
        setTimeout(() => response.end(text.slice(3)), 5);
      } else if (request.url?.startsWith('/slow') === true) {
        setTimeout(() => response.end(text), 150);
      } else if (request.url?.includes('/big/') === true) {
        const big = Buffer.alloc(Number(request.url.split('/').at(-1)), '.');
        response.setHeader('Content-Length', big.length);
        response.end(big, () => console.log('written'));
      } else if (request.url?.startsWith('/none') === true) {
        response.writeHead(204).end();
      } else {
        response.setHeader('Content-Length', text.length);
        response.end(text);
      }
    });
  });
  server.on('upgrade', (_, socket) => {
    console.log('upgraded');
    socket.on('error', () => console.log('upgraded and reset'));
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
    socket.pipe(socket);
  });
  server.keepAliveTimeout = 60_000;
  server.listen({ port, host: '::' }, () => console.log('ready'));
}

class Line {
  readonly socket: Socket;
  text = '';
  state: Heard['state'] = 'open';

  constructor(host: string, port: number, deaf: boolean) {
    this.socket = connect({ host, port });
    this.socket.setNoDelay(true);
    if (deaf) this.socket.pause();
    this.socket.on('data', (data) => {
      this.text += data.toString('latin1');
    });
    this.socket.on('end', () => {
      this.state = 'ended';
    });
    this.socket.on('error', (error) => {
      this.state = 'code' in error && error.code === 'ECONNREFUSED' ? 'refused' : 'reset';
    });
  }

  async say({ parts, answers, patience, until, deaf }: Talk): Promise<Heard> {
    const from = this.text.length;
    for (const part of parts) {
      this.socket.write(Buffer.from(part, 'latin1'));
      if (parts.length > 1) await sleep(1);
    }
    if (deaf === true) return { text: '', state: this.state };
    this.socket.resume();
    const heard = () => this.text.slice(from);
    for (const end = Date.now() + patience; Date.now() < end && this.state === 'open'; await sleep(2))
      if (until === undefined ? answers > 0 && complete(heard()) >= answers : heard().includes(until)) break;
    return { text: heard(), state: this.state };
  }
}

/** How many answers of ours, or the kernel's, are there whole: those with a length, in chunks, or without a body. */
function complete(text: string): number {
  let count = 0;
  for (const [part] of text.matchAll(/HTTP\/1\.1 \d{3}[\s\S]*?(?=HTTP\/1\.1 \d{3}|$)/g)) {
    const end = part.indexOf('\r\n\r\n');
    if (end < 0) continue;
    const length = /content-length: *(\d+)/i.exec(part.slice(0, end))?.[1];
    const whole =
      length !== undefined
        ? part.length - end - 4 >= Number(length)
        : !/chunked/i.test(part.slice(0, end)) || part.endsWith('0\r\n\r\n');
    if (whole) count++;
  }
  return count;
}

async function talk(): Promise<void> {
  const lines = new Map<string, Line>();
  console.log('ready');
  for await (const command of createInterface({ input: process.stdin })) {
    const asked: Talk = JSON.parse(command);
    const line = lines.get(asked.name ?? '') ?? new Line(asked.host, asked.port, asked.deaf === true);
    if (asked.name === undefined) {
      const heard = await line.say(asked);
      line.socket.destroy();
      console.log(JSON.stringify(heard));
    } else {
      lines.set(asked.name, line);
      console.log(JSON.stringify(await line.say(asked)));
    }
  }
}

const [mode, port] = process.argv.slice(2);
if (mode === 'serve') serve(Number(port));
else if (mode === 'talk') await talk();
