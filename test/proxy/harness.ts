import { connect, createServer, type Server, type Socket } from 'node:net';
import { parseIp } from '../../src/model/address.ts';
import { identityNumber } from '../../src/model/identity.ts';
import type { ProxyImage, ProxyRule } from '../../src/policy/proxy/image.ts';
import type { ProxyFlow } from '../../src/policy/proxy/wire.ts';
import type { RequestMatch } from '../../src/policy/request.ts';
import type { Origin, Shared } from '../../src/proxy/connection.ts';
import { Counts } from '../../src/proxy/counts.ts';
import { Flows } from '../../src/proxy/flows.ts';
import { Intake } from '../../src/proxy/intake.ts';
import { type Limits, limits } from '../../src/proxy/limits.ts';
import { PolicyInForce } from '../../src/proxy/policy.ts';
import { Secrets } from '../../src/proxy/tls/secrets.ts';

export const client = parseIp('10.244.1.1');
export const server = parseIp('10.244.1.2');
const identity = identityNumber(300);

/** What is allowed by a rule of number 7; with nothing given, everything whatever it is. */
export function allow(...requests: readonly RequestMatch[]): ProxyRule {
  return {
    number: 7,
    flags: 0,
    verdict: 'allow',
    reach: [{ peers: [[identity, identity]], ports: [{ from: 0, to: 0xffff }] }],
    ...(requests.length === 0 ? {} : { requests }),
  };
}

/** Rules of a pod that isolates itself; what none allows is denied by number 9. */
export function imageOf(rules: readonly ProxyRule[], isolationFlags = 0): ProxyImage {
  return {
    endpoints: [{ addresses: [server], identity4: identityNumber(301), identity6: identityNumber(0), ingress: 0 }],
    sides: [{ network: { rules, isolated: { rule: 9, flags: isolationFlags } } }],
    identities: Array.from({ length: 145 }, (_, i) => [identityNumber(256 + i), `class ${256 + i}`] as const),
    implied: [],
    rules: [
      [7, 'the rule'],
      [9, 'the policy'],
    ],
  };
}

/** Paths that begin so. */
export function paths(...prefixes: readonly string[]): RequestMatch {
  return { kind: 'http', path: { some: prefixes.map((text) => ({ op: 'prefix', text })) } };
}

export async function listening(made: Server): Promise<number> {
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
  const address = made.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** A proxy within this process, in front of a server of the test's, on addresses of the loopback device. */
export class TestProxy {
  readonly shared: Shared;
  readonly intake: Intake;
  readonly port: number;
  readonly #front: Server;
  readonly #flows: ProxyFlow[] = [];
  #revision = 0;
  /** How many connections to the server there were. */
  opened = 0;
  /** Its own, of the one to the server that was made last. */
  lastPort: number | undefined;

  private constructor(front: Server, port: number, to: number, own: Partial<Limits>) {
    this.#front = front;
    this.port = port;
    this.shared = {
      policy: new PolicyInForce(),
      secrets: new Secrets(),
      flows: new Flows(),
      counts: new Counts(),
      limits: { ...limits, ...own },
      open: () => {
        this.opened++;
        const socket = connect({ host: '127.0.0.1', port: to, allowHalfOpen: true, noDelay: true });
        socket.once('connect', () => {
          this.lastPort = socket.localPort;
        });
        return socket;
      },
    };
    this.shared.flows.set({ every: 1, perSecond: 1_000_000 });
    this.intake = new Intake(this.shared, (socket) => this.originOf(socket));
    this.intake.listen(front);
  }

  /** @param to The server's port. */
  static async start(to: number, image?: ProxyImage, own: Partial<Limits> = {}): Promise<TestProxy> {
    const front = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true });
    const proxy = new TestProxy(front, await listening(front), to, own);
    if (image !== undefined) proxy.take(image);
    return proxy;
  }

  originOf: (socket: Socket) => Origin | undefined = ({ remotePort }) => ({
    client,
    clientPort: remotePort ?? 0,
    server,
    port: 80,
    identity,
    pattern: identityNumber(0),
  });

  take(image: ProxyImage): void {
    this.shared.policy.take(++this.#revision, image);
  }

  connect(allowHalfOpen = true): Socket {
    return connect({ port: this.port, host: '127.0.0.1', allowHalfOpen, noDelay: true });
  }

  /** @returns What has been said since the last time, in short: `allow GET /a 200`. */
  flows(): string[] {
    this.#flows.push(...(this.shared.flows.take()?.flows ?? []));
    return this.#flows
      .splice(0)
      .map((flow) =>
        [flow.verdict, flow.method, flow.path, flow.status, flow.serverName, flow.grpcStatus, flow.reason]
          .filter((part) => part !== undefined && part !== '')
          .join(' '),
      );
  }

  async close(): Promise<void> {
    await this.intake.drain(0);
    this.#front.close();
  }
}

/** Waits until something is so. */
export async function until(holds: () => boolean, what: string | (() => string)): Promise<void> {
  const end = Date.now() + 20_000;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`waited in vain: ${typeof what === 'string' ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A client that says bytes, and what it hears. */
export class Talker {
  readonly socket: Socket;
  text = '';
  /** `reset`: by an error; `closed`: in good order. */
  state: 'open' | 'ended' | 'closed' | 'reset' = 'open';

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.text += bytes.toString('latin1');
    });
    socket.on('end', () => {
      this.state = 'ended';
    });
    socket.on('error', () => {
      this.state = 'reset';
    });
    socket.on('close', () => {
      if (this.state !== 'reset') this.state = 'closed';
    });
  }

  say(text: string): void {
    this.socket.write(Buffer.from(text, 'latin1'));
  }

  async hears(text: string | RegExp): Promise<void> {
    await until(
      () => (typeof text === 'string' ? this.text.includes(text) : text.test(this.text)),
      () => `${text} in ${JSON.stringify(this.text)} (${this.state})`,
    );
  }

  async becomes(...states: readonly Talker['state'][]): Promise<void> {
    await until(
      () => states.includes(this.state),
      () => `${states.join()}, not ${this.state}: ${JSON.stringify(this.text)}`,
    );
  }

  /** @returns The statuses of all answers so far. */
  get statuses(): number[] {
    return [...this.text.matchAll(/HTTP\/1\.[01] (\d{3})/g)].map(([, status]) => Number(status));
  }
}
