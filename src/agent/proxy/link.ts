import { connect, type Socket } from 'node:net';
import { StringDecoder } from 'node:string_decoder';
import {
  type AgentMessage,
  longestLine,
  type ProxyFlow,
  type ProxyMessage,
  type ProxyStats,
  parseProxyLine,
} from '../../policy/proxy/wire.ts';
import { ProxyError } from './spawn.ts';

export interface ProxyLinkEvents {
  readonly onFlows: (flows: readonly ProxyFlow[], lost: number) => void;
  /** A revision was taken; with `refused`, it was not. */
  readonly onApplied: (revision: number, refused: string | undefined) => void;
  /** It has said how it is. */
  readonly onStats: (link: ProxyLink) => void;
  /** It says no more: the process has ended, or talks to another agent. */
  readonly onGone: (link: ProxyLink, error: Error | undefined) => void;
}

const helloMs = 15_000;

/** What is said with one proxy process over its control socket. */
export class ProxyLink {
  readonly pid: number;
  readonly version: string;
  readonly #socket: Socket;
  #stats: ProxyStats | undefined;
  #drained = false;

  /**
   * Connects to whoever listens at the path.
   * @returns Once it has said who it is; undefined where nobody listens.
   * @throws {ProxyError} `ProxyNotStarted` where what listens is no proxy of this kind
   */
  static async open(path: string, events: ProxyLinkEvents): Promise<ProxyLink | undefined> {
    const socket = connect(path);
    const connected = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    if (!connected) return undefined;
    return await new Promise<ProxyLink>((resolve, reject) => {
      let link: ProxyLink | undefined;
      let problem: Error | undefined;
      const fail = (reason: string, cause?: unknown): void => {
        problem = new ProxyError('ProxyNotStarted', reason, { cause });
        socket.destroy();
      };
      const timer = setTimeout(() => fail('the proxy does not say who it is'), helloMs);
      socket.on('error', (error) => {
        problem ??= error;
      });
      socket.on('close', () => {
        clearTimeout(timer);
        if (link === undefined)
          reject(new ProxyError('ProxyNotStarted', 'the proxy ended before it said who it is', { cause: problem }));
        else events.onGone(link, problem);
      });
      readLines(socket, (line) => {
        let message: ProxyMessage;
        try {
          message = parseProxyLine(line);
        } catch (error) {
          return fail(error instanceof Error ? error.message : String(error), error);
        }
        if (link !== undefined) return link.#hear(message, events);
        if (message.type !== 'hello') return fail('the proxy does not say who it is');
        clearTimeout(timer);
        link = new ProxyLink(socket, message);
        resolve(link);
      });
    });
  }

  private constructor(socket: Socket, { pid, version }: { readonly pid: number; readonly version: string }) {
    this.#socket = socket;
    this.pid = pid;
    this.version = version;
  }

  /** As it said last. */
  get stats(): ProxyStats | undefined {
    return this.#stats;
  }

  /** Whether it takes no new connections any more. */
  get draining(): boolean {
    return this.#drained || this.#stats?.draining === true;
  }

  tell(message: AgentMessage): void {
    if (message.type === 'drain') this.#drained = true;
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Lets go of the proxy, which goes on. */
  close(): void {
    this.#socket.destroy();
  }

  #hear(message: ProxyMessage, { onFlows, onApplied, onStats }: ProxyLinkEvents): void {
    switch (message.type) {
      case 'requests':
        onFlows(message.flows, message.lost);
        return;
      case 'stats':
        this.#stats = message.stats;
        onStats(this);
        return;
      case 'applied':
        onApplied(message.revision, message.refused);
        return;
      case 'hello':
    }
  }
}

function readLines(socket: Socket, onLine: (line: string) => void): void {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  socket.on('data', (bytes: Buffer) => {
    const lines = (rest + decoder.write(bytes)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '' && !socket.destroyed) onLine(line);
    if (rest.length > longestLine) socket.destroy(new Error('the proxy says a line without end'));
  });
}
