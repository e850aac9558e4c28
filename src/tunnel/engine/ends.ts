import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { BpfObject, type LoadedObject } from '../../kernel/bpf/object.ts';
import { openUdp, steerSockets, type UdpOptions } from '../../kernel/sockets.ts';
import { openTun, steerTun, type TunOptions } from '../../kernel/tun.ts';

const objectPath = join(import.meta.dirname, '../../../build/bpf/steer.bpf.o');
/** In the map of the port's sockets. */
const kernelPlace = 0;
const firstThread = 1;

/**
 * The programs by which the kernel gives each packet to the thread that has its security association (bpf/steer.bpf.c). They stay
 * with the device and the sockets when this is closed.
 */
export class Steering {
  readonly #object: LoadedObject;

  private constructor(object: LoadedObject) {
    this.#object = object;
  }

  /**
   * @param pinDir Where the table of the port's sockets is found by a later process, so that another socket can join.
   * @throws {KernelError} `Verifier`, `IncompatiblePin`, `Errno`
   */
  static load(pinDir?: string): Steering {
    return new Steering(BpfObject.open(objectPath).load(pinDir === undefined ? {} : { pinDir }));
  }

  /**
   * Opens a device's queues, one for each thread.
   * @throws {KernelError} as `openTun`
   */
  openQueues(options: TunOptions & { readonly queues: number }): readonly number[] {
    const { fds } = openTun(options);
    const [first] = fds;
    if (fds.length > 1 && first !== undefined)
      try {
        steerTun(first, this.#object.program('steer_tun').fd, options.name);
      } catch (error) {
        for (const fd of fds) closeSync(fd);
        throw error;
      }
    return fds;
  }

  /**
   * Opens the sockets of one port, one for each thread, none of which gets anything of another's.
   * @throws {KernelError} `Errno` (EADDRINUSE: also where those that have it would share it)
   */
  openSockets(options: UdpOptions, threads: number): readonly number[] {
    closeSync(openUdp(options).fd);
    const fds: number[] = [];
    try {
      for (let thread = 0; thread < threads; thread++) {
        const { fd } = openUdp({ ...options, reusePort: true });
        fds.push(fd);
        if (thread === 0) steerSockets(fd, this.#object.program('steer_esp').fd);
        this.#object.map('esp_sockets').update(numberKey(firstThread + thread), descriptor(fd));
      }
      return fds;
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  }

  /**
   * Opens a socket beside those of an engine, which share the port: the kernel takes ESP with its own SPIs out of it.
   * @throws {KernelError} `Errno` (EADDRINUSE: those that have the port do not share it; ENOPROTOOPT: the kernel has no ESP)
   */
  openKernelSocket(options: UdpOptions): number {
    const { fd } = openUdp({ ...options, reusePort: true, espInUdp: true });
    try {
      this.#object.map('esp_sockets').update(numberKey(kernelPlace), descriptor(fd));
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    this.#object.close();
  }
}

function numberKey(place: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(place).buffer);
}

function descriptor(fd: number): Uint8Array {
  return new Uint8Array(BigUint64Array.of(BigInt(fd)).buffer);
}
