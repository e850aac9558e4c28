import type { Logger } from 'pino';
import { messageOf } from '../identity/certificate.ts';
import { deviceHas, espOffload } from '../kernel/device-features.ts';
import { deviceIndex } from '../kernel/ffi/libc.ts';
import { findLink } from '../kernel/ip.ts';
import { probeXfrm } from '../kernel/probe.ts';
import { waitForPackets } from '../kernel/rcu.ts';
import type { IpAddress } from '../model/address.ts';
import { ChangingDriver } from '../tunnel/changing-driver.ts';
import type { TunnelDriver, UnderlayAddress } from '../tunnel/driver.ts';
import type { PathTable } from '../tunnel/xfrm/sending.ts';
import { XfrmDriver } from '../tunnel/xfrm/xfrm-driver.ts';
import { Engine } from './engine.ts';
import { carrierDevice, interfaceId, makeCarrier, removeCarrier } from './kernel-tunnel.ts';

export interface OpenDriver {
  readonly driver: TunnelDriver;
  /** Of the TUN device, whose reader holds the packets of pairs without a tunnel (and, without a carrier, seals the others). */
  readonly ifindex: number;
  /** Of the xfrm device, where the kernel carries tunnels. */
  readonly carrier?: number;
  /** Tunnels that an earlier agent left in another driver go over to this one. */
  readonly change?: {
    /** When none is left there. */
    readonly over: Promise<void>;
    /** The xfrm device from then on. */
    readonly carrier?: number;
    /** To be called then, when the datapath knows. */
    finish(): Promise<void>;
  };
  /** How large packets of the underlay may be, to an address or (undefined) to all others; the kernel's ESP knows by itself. */
  limitPath(address: IpAddress | undefined, mtu: number): Promise<void>;
  /** Lets larger packets in: pods with larger devices are to come. */
  raiseMtu(mtu: number): Promise<void>;
  /** Keeps a NAT's mapping on the way to a peer. The engine's socket is at the kernel's port too, where there is one. */
  keepAlive(peer: UnderlayAddress): Promise<void>;
  /** To be called once the tunnels listen: repeats what was said before. */
  repeatEarly(): void;
  close(): Promise<void>;
}

export interface DriverChoice {
  readonly driver: 'auto' | 'engine' | 'xfrm';
  /** What `auto` takes where both are possible. */
  readonly preferDriver: 'engine' | 'xfrm';
  readonly runDir: string;
  /** Where the datapath is pinned. */
  readonly bpfDir: string;
  readonly espPort: number;
  readonly underlay: IpAddress;
  readonly uplink: string;
  /** Of the engine, in each direction. */
  readonly threads: number;
  /** Of the pods' devices. */
  readonly mtu: number;
  /** The datapath's paths into the carrier, given its index. */
  readonly paths: (carrier: number) => PathTable;
}

/**
 * Opens the tunnel driver that was asked for.
 *
 * `auto` is the engine unless the kernel is preferred and able. The engine needs nothing of the kernel but TUN and keeps
 * more of what driver.ts promises: at a hard limit packets wait where the kernel drops them, a peer is followed by its
 * newest packet only, a replay window may be larger than 4,096, and its keys are in locked memory where the kernel shows
 * them to whoever may list associations. The kernel spares packets the way through a process; whether that is faster
 * depends on the machine (software ESP in UDP is neither segmented nor coalesced there), so somebody has to say so.
 * @throws {KernelError} `Missing` where xfrm was asked for by name and the kernel has none
 */
export async function openDriver(choice: DriverChoice, logger: Logger): Promise<OpenDriver> {
  return (await chosen(choice, logger)) === 'xfrm' ? openXfrm(choice, logger) : openEngine(choice, logger);
}

async function chosen({ driver, preferDriver }: DriverChoice, logger: Logger): Promise<'engine' | 'xfrm'> {
  if (driver !== 'auto') return driver;
  if (preferDriver === 'engine') return 'engine';
  const missing = await probeXfrm();
  if (missing === '') return 'xfrm';
  logger.warn({ missing }, 'the kernel cannot carry tunnels: the engine does');
  return 'engine';
}

async function openEngine(choice: DriverChoice, logger: Logger): Promise<OpenDriver> {
  const before = await findLink(carrierDevice);
  const engine = await Engine.open({ ...engineOptions(choice), kernelEsp: before !== undefined }, logger);
  const alone: OpenDriver = {
    driver: engine.driver,
    ifindex: engine.ifindex,
    limitPath: (address, mtu) => engine.driver.setPathMtu(address, mtu),
    raiseMtu: (mtu) => engine.raiseMtu(mtu),
    keepAlive: (peer) => engine.driver.keepAlive(peer),
    repeatEarly: () => engine.repeatEarly(),
    close: () => engine.close(),
  };
  const end = async () => {
    await removeCarrier();
    await engine.closeKernelSocket();
  };
  try {
    const kernel =
      before === undefined ? undefined : await kernelDriver(choice, { engine, carrier: before.ifindex }, logger);
    if (before === undefined || kernel === undefined || (await kernel.list()).length === 0) {
      await kernel?.close();
      await end();
      return alone;
    }
    logger.info('the kernel’s tunnels go over to the engine');
    const changing = new ChangingDriver(engine.driver, kernel, {
      log: logger,
      // From here on the pair's packets are the engine's; those that are on their way to the kernel still find its key.
      onOutbound: async (pairs) => {
        const paths = choice.paths(before.ifindex);
        for (const pair of pairs) paths.close(pair);
        await waitForPackets();
      },
    });
    return {
      ...alone,
      driver: changing,
      carrier: before.ifindex,
      change: { over: changing.over, finish: end },
      close: async () => {
        await changing.close();
        await engine.close();
      },
    };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

async function openXfrm(choice: DriverChoice, logger: Logger): Promise<OpenDriver> {
  const carrier = await makeCarrier(choice);
  const engine = await Engine.open({ ...engineOptions(choice), kernelEsp: true }, logger);
  try {
    const kernel = await kernelDriver(choice, { engine, carrier }, logger);
    const isLeft = (await engine.driver.list()).length > 0;
    if (isLeft) logger.info('the engine’s tunnels go over to the kernel');
    const changing = isLeft ? new ChangingDriver(kernel, engine.driver, { log: logger }) : undefined;
    return {
      driver: changing ?? kernel,
      ifindex: engine.ifindex,
      carrier,
      ...(changing === undefined ? {} : { change: { over: changing.over, carrier, finish: async () => {} } }),
      limitPath: async () => {},
      keepAlive: (peer) => engine.driver.keepAlive(peer),
      raiseMtu: async (mtu) => {
        await engine.raiseMtu(mtu);
        await makeCarrier({ ...choice, mtu });
      },
      repeatEarly: () => engine.repeatEarly(),
      close: async () => {
        await (changing ?? kernel).close();
        await engine.close();
      },
    };
  } catch (error) {
    await engine.close();
    throw error;
  }
}

async function kernelDriver(
  { underlay, espPort, uplink, runDir, paths }: DriverChoice,
  { engine, carrier }: { engine: Engine; carrier: number },
  logger: Logger,
): Promise<XfrmDriver> {
  return new XfrmDriver(
    {
      underlay: { address: underlay, port: espPort },
      ...{ uplink, interfaceId, notesPath: `${runDir}/xfrm`, offload: await offloadOf(uplink, logger) },
    },
    { holder: engine.driver, paths: paths(carrier), log: logger },
  );
}

/** @returns Index of the uplink where it says that it seals and opens ESP. */
async function offloadOf(uplink: string, logger: Logger): Promise<number | undefined> {
  try {
    const has = await deviceHas(uplink, espOffload);
    logger.info({ uplink, espOffload: has }, has ? 'the uplink says that it seals ESP' : 'the processor seals ESP');
    return has ? deviceIndex(uplink) : undefined;
  } catch (error) {
    logger.info({ uplink, error: messageOf(error) }, 'what the uplink can do is not known: the processor seals ESP');
    return undefined;
  }
}

function engineOptions({ runDir, bpfDir, underlay, espPort, mtu, threads }: DriverChoice) {
  return { socketPath: `${runDir}/engine.sock`, pinDir: bpfDir, address: underlay, port: espPort, mtu, threads };
}
