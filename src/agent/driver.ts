import type { Logger } from 'pino';
import type { IpAddress } from '../model/address.ts';
import type { TrafficSelector, TunnelDriver } from '../tunnel/driver.ts';
import { Engine } from './engine.ts';

export interface OpenDriver {
  readonly driver: TunnelDriver;
  /** Of the device that packets enter tunnels by and come out of. */
  readonly ifindex: number;
  close(): Promise<void>;
}

export interface DriverChoice {
  readonly driver: 'auto' | 'engine' | 'xfrm';
  readonly runDir: string;
  readonly espPort: number;
  readonly underlay: IpAddress;
  readonly mtu: number;
  readonly onPath: (pair: TrafficSelector, open: boolean) => void;
}

/** Opens the tunnel driver that was asked for; `auto` is the engine, which needs nothing of the kernel but TUN. */
export async function openDriver(choice: DriverChoice, logger: Logger): Promise<OpenDriver> {
  const engine = await Engine.open(
    { socketPath: `${choice.runDir}/engine.sock`, address: choice.underlay, port: choice.espPort, mtu: choice.mtu },
    logger,
  );
  return { driver: engine.driver, ifindex: engine.ifindex, close: () => engine.close() };
}
