import { connect, type Socket } from 'node:net';
import { resetOnDeath, resetSocket } from '../kernel/tcp-socket.ts';
import { MyelinError } from '../model/error.ts';
import type { DropReason } from '../model/verdict.ts';
import { optionFlags } from '../policy/image.ts';
import type { Judge, Judgement, ProxiedConnection } from '../policy/proxy/judge.ts';
import { type Hello, same, type TlsAsked } from '../policy/proxy/tls.ts';
import type { ProxyFlow } from '../policy/proxy/wire.ts';
import type { Request } from '../policy/request.ts';
import type { Counts } from './counts.ts';
import type { Flows } from './flows.ts';
import type { Limits } from './limits.ts';
import type { PolicyInForce } from './policy.ts';
import type { Secrets } from './tls/secrets.ts';
import type { Protocol, Refusal, Way } from './tls/way.ts';

/** Who is at both ends, as the datapath said it with the connection's first packet. */
export interface Origin extends ProxiedConnection {
  readonly clientPort: number;
}

/** What all connections share. */
export interface Shared {
  readonly policy: PolicyInForce;
  readonly secrets: Secrets;
  readonly flows: Flows;
  readonly counts: Counts;
  readonly limits: Limits;
  /** How a connection to the server is made. */
  readonly open: (origin: Origin) => Socket;
}

/** What reads one protocol on a connection. */
export interface Gate {
  /** Policy is another one: what runs is judged again. */
  policyChanged(): void;
  /** What runs may end, nothing begins; whoever has nothing that runs closes. */
  drain(): void;
}

/** Something that is said of a request: the rest is the connection's. */
export type Said = Partial<
  Pick<
    ProxyFlow,
    'method' | 'path' | 'status' | 'grpcStatus' | 'serverName' | 'latencyMs' | 'reason' | 'direction' | 'rule' | 'flags'
  >
> &
  Pick<ProxyFlow, 'protocol' | 'verdict'>;

/**
 * Opens the connection to the server under the very addresses and ports that the client has and believes in: both ends
 * see each other, and the datapath sees one connection.
 */
export function openTransparently({ client, clientPort, server, port }: Origin): Socket {
  return connect({
    host: server,
    port,
    localAddress: client,
    localPort: clientPort,
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: 60_000,
  });
}

/**
 * One client's connection, and the one to its server once a request is allowed. When either breaks, the other is reset; when
 * both have ended, it is over.
 */
export class Connection {
  /** The socket itself, below whatever is within it. */
  readonly wire: Socket;
  #client: Socket;
  readonly origin: Origin;
  readonly shared: Shared;
  #server: Socket | undefined;
  #judge: Judge;
  #gate: Gate | undefined;
  #serverWire: Socket | undefined;
  /** How the connection began, and what policy wanted of its TLS then. */
  #begun: { readonly hello: Hello; readonly asked: TlsAsked } | undefined;
  /** Where requests go by a way of their own. */
  way: Way | undefined;
  #timer: NodeJS.Timeout | undefined;
  #over = false;
  /** The client hears its last words, and ends the connection itself. */
  #lingers = false;
  readonly #onOver: () => void;

  /** @param onOver Called once, when both sockets are closed. */
  constructor(client: Socket, origin: Origin, judge: Judge, shared: Shared, onOver: () => void) {
    this.wire = client;
    this.#client = client;
    this.origin = origin;
    this.shared = shared;
    this.#judge = judge;
    this.#onOver = onOver;
    resetOnDeath(client);
    client.on('error', () => this.reset());
    client.on('close', () => this.#closed(this.#server));
  }

  /** What the client says and hears: within TLS, where that is ended here. */
  get client(): Socket {
    return this.#client;
  }

  /** The client's TLS stands. @param client What is within it. */
  secured(client: Socket): void {
    this.#client = client;
  }

  get server(): Socket | undefined {
    return this.#server;
  }

  get over(): boolean {
    return this.#over;
  }

  set gate(gate: Gate) {
    this.#gate = gate;
  }

  judge(request: Request | undefined): Judgement {
    const name = this.#serverName;
    const within = request?.kind === 'http' && name !== undefined;
    return this.#judge.judge(within ? { ...request, serverName: name } : request);
  }

  /** The connection has begun so. @returns What is to be done with its TLS. */
  began(hello: Hello): TlsAsked {
    const asked = this.#judge.tls(hello);
    this.#begun = { hello, asked };
    return asked;
  }

  /** Of the server that the client's TLS asks for, where what is within is read. */
  get #serverName(): string | undefined {
    const hello = this.#begun?.hello;
    return hello?.kind === 'tls' ? hello.serverName : undefined;
  }

  /**
   * Makes ready what an allowed request needs before it may go to the server.
   * @param host As the request has it. @param then Called at once where nothing is needed; never once the connection is over.
   */
  toServer(host: string | undefined, protocol: Protocol, then: (refused?: Refusal) => void): void {
    if (this.way === undefined) then();
    else this.way.reach(host, protocol, then);
  }

  /** Policy is another one. @param judge Undefined: the connection is not judged any more, and ends. */
  policyChanged(judge: Judge | undefined): void {
    if (judge === undefined) {
      this.reset();
      return;
    }
    this.#judge = judge;
    this.#gate?.policyChanged();
    // What goes on in the wrong way does so no longer than the request that runs.
    if (this.#begun !== undefined && !same(judge.tls(this.#begun.hello), this.#begun.asked)) this.drain();
  }

  drain(): void {
    this.#gate?.drain();
  }

  /**
   * Judges again what has been let in. What denies may ask for such to be kept.
   * @returns Whether it may go on.
   */
  stillAllowed(request: Request | undefined): boolean {
    const { verdict, flags } = this.judge(request);
    return verdict === 'allow' || (flags & optionFlags.keep) !== 0;
  }

  /** The connection to the server, which is opened when it is asked for first. */
  openServer(): Socket {
    if (this.#server !== undefined) return this.#server;
    if (this.way?.secure === true)
      throw new MyelinError('InClear', 'a server that TLS is to be opened to is not spoken to in clear');
    const server = this.adopt(this.shared.open(this.origin));
    const timer = setTimeout(() => this.reset(), this.shared.limits.connectMs);
    server.once('connect', () => {
      clearTimeout(timer);
      resetOnDeath(server);
    });
    server.once('close', () => clearTimeout(timer));
    return server;
  }

  /** The connection to the server is this one. @param wire The socket below it. */
  adopt(server: Socket, wire = server): Socket {
    this.#server = server;
    this.#serverWire = wire;
    if (server !== wire) server.on('error', () => this.reset());
    wire.on('error', () => this.reset());
    wire.on('close', () => this.#closed(this.client));
    return server;
  }

  /** Waits so long for whatever is due, and then ends the connection; what was waited for before is forgotten. */
  patience(ms: number | undefined, end: () => void = () => this.reset()): void {
    clearTimeout(this.#timer);
    this.#timer = ms === undefined || this.#over ? undefined : setTimeout(end, ms);
  }

  /** Ends both connections at once, so that nobody takes it for an orderly end. */
  reset(): void {
    resetSocket(this.wire);
    if (this.#serverWire !== undefined) resetSocket(this.#serverWire);
  }

  /**
   * The last that the client hears. What it says meanwhile is swallowed: a socket that is closed over what nobody read
   * resets, and the reset would overtake the words.
   */
  lastWords(words: string | Uint8Array): void {
    const { client } = this;
    this.#lingers = true;
    for (const event of ['data', 'drain', 'end']) client.removeAllListeners(event);
    client.on('end', () => client.destroySoon());
    client.end(words, () =>
      this.patience(this.shared.limits.lingerMs, () => {
        client.destroy();
        this.#server?.destroy();
      }),
    );
    client.resume();
    if (client.readableEnded) client.destroySoon();
    this.#server?.destroySoon();
  }

  /** Refuses what can not be read. */
  refuse(reason: DropReason, protocol: ProxyFlow['protocol']): void {
    this.shared.counts.refuse(reason);
    this.#tell({ protocol, verdict: 'deny', reason });
  }

  /** Counts a request, and says it. */
  say(said: Said): void {
    if (said.verdict === 'allow') this.shared.counts.allowed++;
    else this.shared.counts.denied++;
    this.#tell(said);
  }

  #tell(said: Said): void {
    const { client, clientPort, server, port, identity } = this.origin;
    this.shared.flows.say({
      time: Date.now(),
      client,
      clientPort,
      server,
      serverPort: port,
      identity,
      direction: 'ingress',
      rule: 0,
      flags: 0,
      method: '',
      path: '',
      ...(this.#serverName === undefined ? {} : { serverName: this.#serverName }),
      ...said,
    });
  }

  /** One of the two is closed: the other gets what there still is for it, and is closed too. */
  #closed(other: Socket | undefined): void {
    if (other !== undefined && !other.destroyed) {
      if (other === this.client && this.#lingers) return;
      other.destroySoon();
      // One that does not take what there is for it would be there for ever.
      this.patience(this.shared.limits.idleMs);
      return;
    }
    if (this.#over) return;
    this.#over = true;
    this.patience(undefined);
    this.#onOver();
  }
}

/** What a judgement is in a flow. */
export function saidOf({ verdict, reason, direction, rule, flags }: Judgement): Omit<Said, 'protocol'> {
  return { verdict, direction, rule, flags, ...(reason === undefined ? {} : { reason }) };
}
