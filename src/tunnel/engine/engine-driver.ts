import { EventEmitter } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from 'pino';
import { sendDescriptor } from '../../kernel/sockets.ts';
import type { IpAddress } from '../../model/address.ts';
import {
  type DriverStatistics,
  type DropReport,
  type InboundSa,
  type InstalledSa,
  type OutboundSa,
  type SaId,
  type TrafficSelector,
  type TunnelDriver,
  type TunnelDriverEvents,
  TunnelError,
  type UnderlayAddress,
} from '../driver.ts';
import { engineSpi } from '../spi-shape.ts';
import { decodeMessage, type EngineHello, type EngineMessage } from './messages.ts';
import {
  encodeFail,
  encodeInstall,
  encodeKeepalive,
  encodeKeepSocket,
  encodeList,
  encodeMovePeer,
  encodePathMtu,
  encodeRelease,
  encodeRemove,
  encodeShutdown,
  encodeStatistics,
  FrameReader,
  protocolVersion,
} from './protocol.ts';

export interface EngineDriverOptions {
  /** The engine's control socket. */
  readonly socketPath: string;
  /** Between two attempts to reach an engine that went away, doubling up to 1 s. Default 20 ms. */
  readonly retryMs?: number;
}

type Answer = EngineMessage & { readonly kind: 'done' | 'sa' | 'counters' };

interface Request {
  readonly resolve: (answers: Answer[]) => void;
  readonly reject: (error: Error) => void;
  readonly what: string;
  readonly answers: Answer[];
}

const longestRetryMs = 1000;

/**
 * The `engine` driver: requests to, and events from, the userspace ESP engine over its control socket. The engine lives
 * on without a driver; a new driver finds in `list()` what an earlier one installed.
 */
export class EngineDriver extends EventEmitter<TunnelDriverEvents> implements TunnelDriver {
  readonly name = 'engine';
  readonly spiOf = (random: number) => engineSpi(random, this.#hello?.threads ?? 1);
  readonly #options: EngineDriverOptions;
  readonly #log: Logger;
  readonly #requests = new Map<number, Request>();
  #nextId = 1;
  #socket: Socket | undefined;
  #hello: EngineHello | undefined;
  #retry: NodeJS.Timeout | undefined;
  #retryMs: number;
  #closed = false;
  #lastError: Error | undefined;

  constructor(options: EngineDriverOptions, deps: { readonly log: Logger }) {
    super();
    this.#options = options;
    this.#log = deps.log;
    this.#retryMs = options.retryMs ?? 20;
  }

  /** The engine in reach, undefined while there is none. */
  get engine(): EngineHello | undefined {
    return this.#hello;
  }

  /**
   * Starts to connect, and goes on by itself whenever the engine is lost until `close()`.
   * @param timeoutMs How long to wait for the first connection.
   * @throws {TunnelError} `DriverDown` after that time; the attempts then end too.
   */
  async open(timeoutMs = 5000): Promise<void> {
    if (this.#hello !== undefined) return;
    const up = new Promise<void>((resolve) => this.once('up', resolve));
    this.#connect();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), timeoutMs);
    });
    const outcome = await Promise.race([up, late]);
    clearTimeout(timer);
    if (outcome !== 'late') return;
    await this.close();
    throw this.#down(`no engine answers at ${this.#options.socketPath}`);
  }

  async installInbound(sa: InboundSa): Promise<void> {
    await this.#install(sa);
  }

  async installOutbound(sa: OutboundSa): Promise<void> {
    await this.#install(sa);
  }

  async remove(sa: SaId): Promise<void> {
    await this.#request(`remove ${describe(sa)}`, (id) => encodeRemove(id, sa));
  }

  async movePeer(sa: SaId, peer: UnderlayAddress): Promise<void> {
    await this.#request(`move the peer of ${describe(sa)}`, (id) => encodeMovePeer(id, sa, peer));
  }

  async list(): Promise<InstalledSa[]> {
    const sas: InstalledSa[] = [];
    let after = 0n;
    for (let more = true; more; ) {
      const from = after;
      const answers = await this.#request('list', (id) => encodeList(id, from));
      more = false;
      for (const answer of answers) {
        if (answer.kind === 'sa') {
          sas.push(answer.sa);
          after = answer.serial;
        }
        if (answer.kind === 'done') more = answer.more && after > from;
      }
    }
    return sas;
  }

  async statistics(): Promise<DriverStatistics> {
    for (const answer of await this.#request('statistics', encodeStatistics))
      if (answer.kind === 'counters') return answer.statistics;
    throw new TunnelError('DriverProtocol', 'the engine answered without statistics');
  }

  async fail(pair: TrafficSelector): Promise<void> {
    await this.#request(`fail ${pair.local} → ${pair.remote}`, (id) => encodeFail(id, pair));
  }

  /**
   * The packets held for the pair go back to the TUN device as they came out of it, in their order: for whoever carries
   * the pair in the engine's place.
   */
  async release(pair: TrafficSelector): Promise<void> {
    await this.#request(`release ${pair.local} → ${pair.remote}`, (id) => encodeRelease(id, pair));
  }

  /**
   * How large a packet of the underlay may be on the way to an address: what does not fit is cut, or its sender is told.
   * @param address Undefined: every address that has no word of its own.
   * @param mtu Bytes, 576 at least; 0: no limit but the device's.
   */
  async setPathMtu(address: IpAddress | undefined, mtu: number): Promise<void> {
    await this.#request(`limit the way to ${address ?? 'peers'}`, (id) => encodePathMtu(id, address, mtu));
  }

  /** Has a NAT on the way to this peer go on taking its packets for this node's (RFC 3948 section 2.3). */
  async keepAlive(peer: UnderlayAddress): Promise<void> {
    await this.#request(`send a keepalive to ${peer.address}`, (id) => encodeKeepalive(id, peer));
  }

  /**
   * Has the engine keep a socket open, which the kernel takes ESP out of, for as long as it lives; it is the engine's that outlives
   * agents. The caller closes its own descriptor.
   * @param fd Undefined: the one that it keeps is closed.
   */
  async keepSocket(fd: number | undefined): Promise<void> {
    // The descriptor goes with its message past what Node writes.
    while ((this.#socket?.writableLength ?? 0) > 0) await nextTurn();
    const what = fd === undefined ? 'close the kernel’s socket' : 'keep the kernel’s socket';
    await this.#request(what, (id) => encodeKeepSocket(id, fd !== undefined), { fd });
    if (this.#hello !== undefined) this.#hello = { ...this.#hello, kernelEsp: fd !== undefined };
  }

  /** Ends the engine itself: all SAs go, all keys are zeroed. */
  async shutdown(): Promise<void> {
    await this.#request('shutdown', encodeShutdown);
    await this.close();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    if (socket === undefined) return;
    const gone = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    socket.destroy();
    await gone;
  }

  async #install(sa: InboundSa | OutboundSa): Promise<void> {
    try {
      await this.#request(`install ${describe(sa)}`, (id) => encodeInstall(id, sa), { secret: true });
    } finally {
      sa.key.fill(0);
      sa.salt.fill(0);
    }
  }

  #request(
    what: string,
    encode: (id: number) => Buffer,
    { secret = false, fd }: { readonly secret?: boolean; readonly fd?: number | undefined } = {},
  ): Promise<Answer[]> {
    const socket = this.#socket;
    if (socket === undefined || this.#hello === undefined)
      return Promise.reject(this.#down(`cannot ${what}: the engine is not connected`));
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    return new Promise((resolve, reject) => {
      const message = encode(id);
      this.#requests.set(id, { resolve, reject, what, answers: [] });
      if (fd !== undefined)
        try {
          return sendDescriptor(socket, message, fd);
        } catch (error) {
          this.#requests.delete(id);
          return reject(error);
        }
      socket.write(message, () => {
        if (secret) message.fill(0);
      });
    });
  }

  /** Does nothing while a connection is there or on its way: the engine's newest one ends the others. */
  #connect(): void {
    clearTimeout(this.#retry);
    if (this.#socket !== undefined) return;
    const socket = connect(this.#options.socketPath);
    const reader = new FrameReader();
    this.#socket = socket;
    socket.on('data', (chunk) => {
      try {
        for (const frame of reader.push(chunk)) this.#receive(decodeMessage(frame));
      } catch (error) {
        socket.destroy(error instanceof Error ? error : undefined);
      }
    });
    socket.on('error', (error) => {
      this.#lastError = error;
    });
    socket.on('close', () => this.#lost());
  }

  #lost(): void {
    const wasUp = this.#hello !== undefined;
    this.#socket = undefined;
    this.#hello = undefined;
    const error = this.#down('the connection to the engine was lost');
    for (const request of this.#requests.values()) request.reject(error);
    this.#requests.clear();
    if (wasUp) {
      this.#retryMs = this.#options.retryMs ?? 20;
      if (!this.#closed) this.#log.warn({ err: error }, 'lost the engine');
      this.emit('down', error);
    }
    if (this.#closed) return;
    this.#retry = setTimeout(() => this.#connect(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 2, longestRetryMs);
  }

  #down(what: string): TunnelError {
    const cause = this.#lastError;
    const why = cause === undefined ? '' : ` (${cause.message})`;
    return new TunnelError('DriverDown', `${what}${why}`, {
      ...(cause === undefined ? {} : { cause }),
      data: { socket: this.#options.socketPath },
    });
  }

  #receive(message: EngineMessage): void {
    switch (message.kind) {
      case 'done':
      case 'sa':
      case 'counters':
        this.#answer(message);
        break;
      case 'hello':
        this.#greeted(message.hello);
        break;
      case 'acquire':
        this.#tell(() => this.emit('acquire', message.pair));
        break;
      case 'expiry':
        this.#tell(() => this.emit(message.when, message.expiry));
        break;
      case 'unknownSpi':
        this.#tell(() => this.emit('unknownSpi', { spi: message.spi, from: message.from }));
        break;
      case 'moved':
        this.#tell(() => this.emit('moved', { sa: message.sa, from: message.from }));
        break;
      case 'drop':
        this.#drop(message.report);
        break;
    }
  }

  #drop(report: DropReport | undefined): void {
    if (report !== undefined) this.#tell(() => this.emit('drop', report));
  }

  /** What a listener makes of an event is no fault of the engine's: the connection stands. */
  #tell(emit: () => void): void {
    try {
      emit();
    } catch (error) {
      this.#log.error({ err: error }, 'a listener of the tunnel driver failed');
    }
  }

  #greeted(hello: EngineHello): void {
    if (hello.version !== protocolVersion)
      throw new TunnelError(
        'DriverProtocol',
        `the engine speaks version ${hello.version} of the control protocol, not ${protocolVersion}: restart it`,
      );
    this.#hello = hello;
    this.#lastError = undefined;
    this.#log.info({ engine: { ...hello, instance: hello.instance.toString(16) } }, 'connected to the engine');
    this.emit('up');
  }

  #answer(answer: Answer): void {
    const request = this.#requests.get(answer.id);
    if (request === undefined)
      throw new TunnelError('DriverProtocol', `the engine answered a request ${answer.id} that nobody made`);
    request.answers.push(answer);
    if (answer.kind !== 'done') return;
    this.#requests.delete(answer.id);
    if (answer.status === 'ok') request.resolve(request.answers);
    else request.reject(new TunnelError(answer.status, `cannot ${request.what}: ${refusals[answer.status]}`));
  }
}

const refusals = {
  DriverDown: 'the engine is not connected',
  SaExists: 'there is such an SA, and a key is installed only once',
  NoSuchSa: 'there is no such SA',
  InvalidSa: 'the engine refused its parameters',
  DriverFull: 'the engine has no room for it',
  DriverProtocol: 'the engine broke its protocol',
} as const;

function describe(sa: SaId): string {
  return `${sa.direction}bound SA 0x${sa.spi.toString(16).padStart(8, '0')} with ${sa.peer.address}`;
}
