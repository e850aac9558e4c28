import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { z } from 'zod';
import { run } from '../kernel/command.ts';
import { KernelError } from '../kernel/error.ts';
import { deviceIndex } from '../kernel/ffi/libc.ts';
import { findLink, ip, ipBatch } from '../kernel/ip.ts';
import { listenError } from '../kernel/listen.ts';
import { listenUnix } from '../kernel/sockets.ts';
import { openTun } from '../kernel/tun.ts';
import type { IpAddress } from '../model/address.ts';
import type { TrafficSelector } from '../tunnel/driver.ts';
import { Steering } from '../tunnel/engine/ends.ts';
import { EngineDriver } from '../tunnel/engine/engine-driver.ts';
import { spawnEngine } from '../tunnel/engine/spawn.ts';

/** The device that packets enter tunnels by and come out of. */
const tunnelDevice = 'myelin0';

const udpBufferBytes = 8 * 1024 * 1024;
const respawnDelayMs = 100;
/** One that ended sooner after its start may do so again. */
const steadyMs = 1000;
const endAttempts = 100;
const endPauseMs = 20;

/** What `ip -d link show` says of a TUN device. */
const deviceShape = z.tuple([
  z.object({
    linkinfo: z
      .object({ info_data: z.object({ multi_queue: z.boolean(), numqueues: z.number() }).partial().optional() })
      .optional(),
  }),
]);

export interface EngineOptions {
  readonly socketPath: string;
  /** Where ESP is received; `::` takes both families. */
  readonly address: IpAddress;
  readonly port: number;
  /** Of the pods' devices, so that a packet that fits theirs fits the tunnel. */
  readonly mtu: number;
  /** The engine also keeps a socket that gives the kernel its ESP, as long as it is not told otherwise. */
  readonly kernelEsp?: boolean;
  /** Where the table of the port's sockets is pinned. */
  readonly pinDir: string;
  /** That seal, and as many that open: 1, 2, 4 or 8. A running engine keeps those that it was started with. */
  readonly threads?: number;
}

/**
 * The node's engine process: taken over where one runs, started where none does, and started again when it dies. The TUN
 * device persists without it, so that the datapath's programs and indices stay right through a crash. An agent that started
 * the engine keeps the device open too: packets that nobody reads meanwhile wait in its queue for the next engine. An agent
 * that took a running one over opens it when it notices the end; until then the device drops them. They are never sent in
 * clear.
 */
export class Engine {
  readonly driver: EngineDriver;
  readonly #options: EngineOptions;
  readonly #log: Logger;
  /** Pairs that asked before anybody listened. */
  readonly #early: TrafficSelector[] = [];
  readonly #keepEarly = (pair: TrafficSelector) => {
    this.#early.push(pair);
  };
  /** The device's queues, as this agent opened them; undefined where the engine was there before. */
  #tunFds: readonly number[] | undefined;
  #startedAt = 0;
  #kernelEsp: boolean;
  #closed = false;
  #respawn: NodeJS.Timeout | undefined;

  private constructor(options: EngineOptions, log: Logger) {
    this.#options = options;
    this.#kernelEsp = options.kernelEsp === true;
    this.#log = log;
    this.driver = new EngineDriver({ socketPath: options.socketPath }, { log });
    // At once, but not again and again.
    this.driver.on('down', () => this.#later(performance.now() - this.#startedAt > steadyMs ? 0 : respawnDelayMs));
    this.driver.on('acquire', this.#keepEarly);
    this.driver.on('up', () => this.#shareAgain());
  }

  /**
   * @throws {KernelError} `Missing` (no TUN), `Errno`; {ListenError} `PortTaken`
   * @throws {TunnelError} `DriverDown`
   */
  static async open(options: EngineOptions, log: Logger): Promise<Engine> {
    const engine = new Engine(options, log);
    const started = await engine.#startIfNone(true);
    await engine.raiseMtu(options.mtu);
    await ipBatch([`link set dev ${tunnelDevice} txqueuelen 4096 addrgenmode none`]);
    // Packets wait in the device itself. Of what the kernel would put before it, there is one for each of 256 queues that a
    // multi-queue device may have: 25 MiB.
    if ((await deviceState())?.multiQueue === true)
      await run('tc', ['qdisc', 'replace', 'dev', tunnelDevice, 'root', 'noqueue']);
    await ipBatch([`link set dev ${tunnelDevice} up`]);
    await engine.driver.open();
    log.info({ started }, started ? 'the engine was started' : 'a running engine was taken over');
    const { kernelEsp = false, sharesPort = false } = engine.driver.engine ?? {};
    if (sharesPort || kernelEsp === (options.kernelEsp === true)) {
      if (sharesPort) await engine.#share();
      return engine;
    }
    if (started) throw new TypeError('an engine that was just started does not share its port');
    log.warn('the running engine is an older one, of another driver: it is ended, and tunnels begin anew');
    await engine.#end();
    return Engine.open(options, log);
  }

  /** The kernel has no associations any more: all of the port is the engine's. */
  async closeKernelSocket(): Promise<void> {
    this.#kernelEsp = false;
    if (this.driver.engine?.kernelEsp === true) await this.driver.keepSocket(undefined);
  }

  /** Gives the kernel a socket of the port for its ESP, where it is to have one and has none. */
  async #share(): Promise<void> {
    if (!this.#kernelEsp || this.driver.engine?.kernelEsp !== false) return;
    const { address, port, pinDir } = this.#options;
    const steering = Steering.load(pinDir);
    try {
      const fd = steering.openKernelSocket({ address, port, mtuDiscover: 'do', bufferBytes: udpBufferBytes });
      await this.driver.keepSocket(fd).finally(() => closeSync(fd));
    } finally {
      steering.close();
    }
  }

  /** An engine that was started in place of another has no socket of the kernel's. */
  #shareAgain(): void {
    if (this.driver.engine?.sharesPort !== true) return;
    this.#share().catch((error: unknown) => this.#log.error({ err: error }, 'the kernel is given no ESP'));
  }

  /** Index of the TUN device. */
  get ifindex(): number {
    return deviceIndex(tunnelDevice);
  }

  /**
   * To be called once somebody listens to the driver: an engine that outlived an agent says for whom packets wait as soon
   * as it is reached, and says it once.
   */
  repeatEarly(): void {
    this.driver.off('acquire', this.#keepEarly);
    for (const pair of this.#early.splice(0)) this.driver.emit('acquire', pair);
  }

  /**
   * Lets packets of this size into the device. It is never lowered: what pods with larger devices send has to come as far as
   * the engine, which cuts it or tells them.
   */
  async raiseMtu(mtu: number): Promise<void> {
    const link = await findLink(tunnelDevice);
    if ((link?.mtu ?? 0) < mtu) await ipBatch([`link set dev ${tunnelDevice} mtu ${mtu}`]);
  }

  /** Lets go of the engine, which goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#respawn);
    await this.driver.close();
    this.#letGo();
  }

  #letGo(): void {
    for (const fd of this.#tunFds ?? []) closeSync(fd);
    this.#tunFds = undefined;
  }

  /** Ends the engine itself. */
  async #end(): Promise<void> {
    this.#closed = true;
    await this.driver.shutdown();
    this.#letGo();
    for (let i = 0; i < endAttempts && (await isHeld()); i++) await sleep(endPauseMs);
  }

  /**
   * @param mayRemake The device may be made anew, with another index, where it is of another kind than the threads want.
   * @returns Whether it had to be started: a TUN device or a port that is held by a process has its engine.
   */
  async #startIfNone(mayRemake = false): Promise<boolean> {
    const { socketPath, address, port, pinDir, threads = 1 } = this.#options;
    const held: number[] = [];
    const steering = Steering.load(pinDir);
    try {
      const tunFds = this.#tunFds ?? (await takeDevice(steering, threads, mayRemake));
      if (tunFds === undefined) return false;
      if (tunFds !== this.#tunFds) held.push(...tunFds);
      const udp = { address, port, gro: true, mtuDiscover: 'do', bufferBytes: udpBufferBytes } as const;
      const udpFds = steering.openSockets(udp, tunFds.length);
      held.push(...udpFds);
      const controlFd = listenUnix(socketPath);
      held.push(controlFd);
      await spawnEngine({ tunFds, udpFds, controlFd });
      this.#tunFds = tunFds;
      this.#startedAt = performance.now();
      return true;
    } catch (error) {
      // The one that was started with this device lives, or has not quite gone.
      if (!(error instanceof KernelError && error.errno === 'EADDRINUSE')) throw error;
      if (this.#tunFds !== undefined) return false;
      throw listenError(error, { what: `UDP port ${port}`, host: address, option: '--esp-port' });
    } finally {
      steering.close();
      for (const fd of held) if (this.#tunFds?.includes(fd) !== true) closeSync(fd);
    }
  }

  #later(delayMs = respawnDelayMs): void {
    if (this.#closed) return;
    clearTimeout(this.#respawn);
    this.#respawn = setTimeout(() => {
      if (this.#closed || this.driver.engine !== undefined) return;
      this.#startIfNone().then(
        (started) => {
          if (started) this.#log.warn('the engine had died and was started again');
          // One that is still going down holds the device: look again until either it answers or it is gone.
          if (this.driver.engine === undefined) this.#later();
        },
        (error: unknown) => {
          this.#log.error({ err: error }, 'the engine cannot be started');
          this.#later();
        },
      );
    }, delayMs);
  }
}

/** What there is of the TUN device; undefined where it is not there. `queues` are those that processes have, as far as the kernel says. */
async function deviceState(): Promise<{ multiQueue: boolean; queues: number } | undefined> {
  if ((await findLink(tunnelDevice)) === undefined) return undefined;
  const shown = deviceShape.parse(await ip(['-d', 'link', 'show', 'dev', tunnelDevice]));
  const { multi_queue: multiQueue = false, numqueues: queues = 0 } = shown[0].linkinfo?.info_data ?? {};
  return { multiQueue, queues };
}

/** @returns The device's queues, one for each thread; undefined where a process has it. */
async function takeDevice(
  steering: Steering,
  threads: number,
  mayRemake: boolean,
): Promise<readonly number[] | undefined> {
  const state = await deviceState();
  if (state !== undefined && state.queues > 0) return undefined;
  const wanted = threads > 1;
  try {
    if (state === undefined || state.multiQueue === wanted)
      return steering.openQueues({ name: tunnelDevice, queues: threads, persist: true });
    // Its index is in the datapath's configuration: with other threads it goes on as well as it can.
    const queues = state.multiQueue ? threads : 1;
    const fds = steering.openQueues({ name: tunnelDevice, queues, multiQueue: state.multiQueue, persist: true });
    if (!mayRemake) return fds;
    for (const fd of fds) closeSync(fd);
    await ipBatch([`link del dev ${tunnelDevice}`]);
    return steering.openQueues({ name: tunnelDevice, queues: threads, persist: true });
  } catch (error) {
    // Of one queue, which is another's.
    if (error instanceof KernelError && error.errno === 'EBUSY') return undefined;
    throw error;
  }
}

/** Whether a process has the TUN device. */
async function isHeld(): Promise<boolean> {
  const state = await deviceState();
  if (state === undefined || state.multiQueue) return (state?.queues ?? 0) > 0;
  try {
    for (const fd of openTun({ name: tunnelDevice, persist: true }).fds) closeSync(fd);
    return false;
  } catch (error) {
    if (error instanceof KernelError && error.errno === 'EBUSY') return true;
    throw error;
  }
}
