import type { Server, Socket } from 'node:net';
import { StringDecoder } from 'node:string_decoder';
import { type AgentMessage, longestLine, type ProxyMessage, parseAgentLine, WireError } from '../policy/proxy/wire.ts';
import type { Shared } from './connection.ts';

const flowsEveryMs = 100;
const statsEveryMs = 1000;

/**
 * The agent's end of the process: policy comes in, what was judged goes out. The agent connects; of several the newest
 * counts. When it goes, everything stays as it is, and what is to be said is kept for the next.
 */
export class Control {
  readonly #shared: Shared;
  readonly #version: string;
  readonly #onDrain: (graceMs: number) => void;
  #agent: Socket | undefined;
  #lastStats = '';
  #flowsDue: NodeJS.Timeout | undefined;

  /** @param server Listens where the agent connects to. */
  constructor(server: Server, shared: Shared, version: string, onDrain: (graceMs: number) => void) {
    this.#shared = shared;
    this.#version = version;
    this.#onDrain = onDrain;
    server.on('connection', (socket) => this.#welcome(socket));
    shared.flows.onKept = () => this.#flowsSoon();
    setInterval(() => this.#sayStats(), statsEveryMs).unref();
  }

  #welcome(agent: Socket): void {
    this.#agent?.destroy();
    this.#agent = agent;
    this.#lastStats = '';
    agent.on('error', () => {});
    agent.on('close', () => {
      if (this.#agent === agent) this.#agent = undefined;
    });
    agent.on('drain', () => this.#flowsSoon());
    const decoder = new StringDecoder('utf8');
    let pieces: string[] = [];
    let length = 0;
    agent.on('data', (bytes: Buffer) => {
      const [first = '', ...lines] = decoder.write(bytes).split('\n');
      pieces.push(first);
      length += first.length;
      for (const next of lines) {
        this.#hear(agent, pieces.join(''));
        pieces = [next];
        length = next.length;
      }
      if (length > longestLine) agent.destroy();
    });
    this.#tell({ type: 'hello', version: this.#version, pid: process.pid, revision: this.#shared.policy.revision });
    this.#flowsSoon();
    this.#sayStats();
  }

  #hear(agent: Socket, line: string): void {
    if (agent !== this.#agent || line === '') return;
    let message: AgentMessage;
    try {
      message = parseAgentLine(line);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // What is not understood opens nothing: the policy before it stays.
      this.#tell({ type: 'applied', revision: this.#shared.policy.revision, refused: error.message.slice(0, 2000) });
      return;
    }
    switch (message.type) {
      case 'policy':
        this.#shared.policy.take(message.revision, message.image);
        this.#tell({ type: 'applied', revision: message.revision });
        return;
      case 'secrets':
        this.#shared.secrets.take(message.secrets);
        return;
      case 'settings':
        this.#shared.flows.set(message);
        return;
      case 'drain':
        this.#onDrain(message.graceMs);
    }
  }

  /** Flows are said together; they wait where the agent does not take what it was told. */
  #flowsSoon(): void {
    if (this.#flowsDue !== undefined || this.#agent === undefined) return;
    this.#flowsDue = setTimeout(() => {
      this.#flowsDue = undefined;
      if (this.#agent === undefined || this.#agent.writableNeedDrain) return;
      const taken = this.#shared.flows.take();
      if (taken !== undefined) this.#tell({ type: 'requests', ...taken });
    }, flowsEveryMs).unref();
  }

  /** Once a second, while something changes. */
  #sayStats(): void {
    if (this.#agent === undefined || this.#agent.writableNeedDrain) return;
    const { stats } = this.#shared.counts;
    const text = JSON.stringify(stats);
    if (text === this.#lastStats) return;
    this.#lastStats = text;
    this.#tell({ type: 'stats', stats });
  }

  #tell(message: ProxyMessage): void {
    this.#agent?.write(`${JSON.stringify(message)}\n`);
  }

  /** The last that is said, before the process ends. */
  async finish(): Promise<void> {
    const agent = this.#agent;
    if (agent === undefined) return;
    const taken = this.#shared.flows.take();
    if (taken !== undefined) this.#tell({ type: 'requests', ...taken });
    this.#sayStats();
    await new Promise<void>((resolve) => {
      agent.once('close', () => resolve());
      agent.end(() => resolve());
    });
  }
}
