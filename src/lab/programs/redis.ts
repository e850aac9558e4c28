import { connect, type Socket } from 'node:net';

interface Waiting {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** One kept connection to a Redis that answers PINGs in order; it reconnects when it is used after a failure. */
export class RedisPinger {
  readonly #host: string;
  readonly #port: number;
  #socket: Socket | undefined;
  #waiting: Waiting[] = [];

  constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
  }

  /** Resolves on +PONG; rejects on anything else, on a broken connection, and after `timeoutMs`. */
  ping(timeoutMs: number): Promise<void> {
    const socket = this.#socket ?? this.#open();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => socket.destroy(new Error('timeout')), timeoutMs);
      this.#waiting.push({
        resolve: () => {
          clearTimeout(timer);
          resolve();
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      socket.write('PING\r\n');
    });
  }

  #open(): Socket {
    const socket = connect({ host: this.#host, port: this.#port, keepAlive: true });
    this.#socket = socket;
    let failure = new Error('connection closed');
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf('\r\n'); end >= 0; end = text.indexOf('\r\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 2);
        const first = this.#waiting.shift();
        if (line === '+PONG') first?.resolve();
        else first?.reject(new Error(line));
      }
    });
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('close', () => {
      if (this.#socket === socket) this.#socket = undefined;
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const each of waiting) each.reject(failure);
    });
    return socket;
  }
}
