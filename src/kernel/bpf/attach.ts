import { closeSync, openSync } from 'node:fs';
import { errnoError, errnoName } from '../error.ts';
import { libbpf } from '../ffi/libbpf.ts';
import type { BpfMap } from './map.ts';
import type { BpfProgram } from './program.ts';

// enum bpf_attach_type
const types = { sockOps: 3, streamVerdict: 5, skLookup: 36 } as const;

/**
 * Makes a program the stream verdict of sockets that are put into a sockhash from now on; those in it keep theirs. It
 * stays as long as the map is pinned, or open anywhere.
 * @throws {KernelError} `Errno`
 */
export function attachToSockets(program: BpfProgram, map: BpfMap): void {
  const result = libbpf.prog_attach(program.fd, map.fd, types.streamVerdict, 0);
  if (result < 0) throw errnoError(-result, `attach program ${program.name}`, `map ${map.name}`);
}

/** A program at a place that is not a device. Without a pin it ends with close(); with one, with the pin. */
export class ProgramLink {
  #fd: number | undefined;

  /**
   * Puts a program on the sockets of a control group and those below it, beside others'. Where a link is pinned at `pin`,
   * its program is replaced in one step.
   * @param group Path of the group's directory.
   * @throws {KernelError} `Errno` (EPERM: another's program is there that allows none beside it)
   */
  static sockOps(program: BpfProgram, group: string, pin?: string): ProgramLink {
    return linkAt(program, group, types.sockOps, `control group ${group}`, pin);
  }

  /**
   * Has a program choose the sockets for what comes to a network namespace and belongs to no connection there. A link that
   * is pinned at `pin` must be to the same namespace; its program is replaced in one step.
   * @param netns Path of the namespace's file.
   * @throws {KernelError} `Errno` (ENOLINK: the pinned link's namespace is gone)
   */
  static skLookup(program: BpfProgram, netns: string, pin?: string): ProgramLink {
    return linkAt(program, netns, types.skLookup, `network namespace ${netns}`, pin);
  }

  /** @param fd Of the link; it is this object's from now on. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Puts another program in the place of the one that is there, in one step. @throws {KernelError} `Errno` */
  replace(program: BpfProgram): void {
    const result = libbpf.link_update(this.#fd ?? -1, program.fd, null);
    if (result < 0) throw errnoError(-result, `replace the program by ${program.name}`, 'where it is linked to');
  }

  /** Once more is nothing more. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

function linkAt(program: BpfProgram, path: string, type: number, object: string, pin: string | undefined): ProgramLink {
  if (pin !== undefined) {
    const fd = libbpf.obj_get(pin);
    if (fd >= 0) {
      const result = libbpf.link_update(fd, program.fd, null);
      if (result === 0) return new ProgramLink(fd);
      closeSync(fd);
      throw errnoError(-result, `replace the program by ${program.name}`, pin);
    }
    if (errnoName(-fd) !== 'ENOENT') throw errnoError(-fd, 'open the pinned link', pin);
  }
  const target = openSync(path, 'r');
  try {
    const fd = libbpf.link_create(program.fd, target, type, null);
    if (fd < 0) throw errnoError(-fd, `attach program ${program.name}`, object);
    const pinned = pin === undefined ? 0 : libbpf.obj_pin(fd, pin);
    if (pinned === 0) return new ProgramLink(fd);
    closeSync(fd);
    throw errnoError(-pinned, 'pin the link', pin ?? '');
  } finally {
    closeSync(target);
  }
}
