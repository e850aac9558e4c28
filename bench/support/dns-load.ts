import { createSocket, type Socket } from 'node:dgram';
import { encode } from 'dns-packet';
import { percentile } from '../../src/cli/percentile.ts';

/*
 * Questions over UDP, and the answers to them, each end one process in a pod:
 *
 *   dns-load.ts serve ADDRESS                  answers every question with an address, always the same
 *   dns-load.ts refused SERVER NAME            asks once; prints whether that was refused
 *   dns-load.ts ask SERVER NAME SECONDS MANY   so many questions outstanding; prints {"rate", "p99"} (a second, ms)
 */

/** What a load has come to. */
export interface DnsLoad {
  readonly rate: number;
  /** Milliseconds. */
  readonly p99: number;
}

const record = Buffer.from([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4, 203, 0, 113, 5]);

function serve(address: string): void {
  const socket = createSocket('udp4');
  socket.on('message', (question, peer) => {
    const answer = Buffer.concat([question, record]);
    answer.writeUInt16BE(0x8180, 2);
    answer.writeUInt16BE(1, 6);
    socket.send(answer, peer.port, peer.address);
  });
  socket.bind(53, address, () => console.log('ready'));
}

/** One question after the other on a socket of its own; one that is not answered is asked again after a second. */
class Asker {
  readonly #socket: Socket;
  readonly #question: Buffer;
  #sent = 0n;
  #id = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(server: string, name: string, onAnswer: (milliseconds: number) => void) {
    this.#question = encode({ type: 'query', id: 0, flags: 0x100, questions: [{ name, type: 'A' }] });
    this.#socket = createSocket('udp4');
    this.#socket.on('message', () => {
      onAnswer(Number(process.hrtime.bigint() - this.#sent) / 1e6);
      this.#ask();
    });
    this.#socket.connect(53, server, () => this.#ask());
  }

  #ask(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), 1000);
    this.#id = (this.#id + 1) % 65_536;
    this.#question.writeUInt16BE(this.#id, 0);
    this.#sent = process.hrtime.bigint();
    this.#socket.send(this.#question);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#socket.close();
  }
}

function ask(server: string, name: string, seconds: number, many: number): void {
  const times: number[] = [];
  const askers = Array.from({ length: many }, () => new Asker(server, name, (time) => times.push(time)));
  setTimeout(() => {
    for (const asker of askers) asker.close();
    const load: DnsLoad = { rate: times.length / seconds, p99: times.length === 0 ? 0 : percentile(times, 0.99) };
    console.log(JSON.stringify(load));
  }, seconds * 1000);
}

function isRefused(server: string, name: string): void {
  const socket = createSocket('udp4');
  socket.on('message', (answer) => {
    console.log((answer.readUInt16BE(2) & 0xf) === 5);
    socket.close();
  });
  socket.send(encode({ type: 'query', id: 1, flags: 0x100, questions: [{ name, type: 'A' }] }), 53, server);
}

const [mode, server = '', name = '', seconds, many] = process.argv.slice(2);
if (mode === 'serve') serve(server);
else if (mode === 'refused') isRefused(server, name);
else if (mode === 'ask') ask(server, name, Number(seconds), Number(many));
