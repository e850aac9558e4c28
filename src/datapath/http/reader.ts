import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { attachToSockets, ProgramLink } from '../../kernel/bpf/attach.ts';
import type { BpfMap } from '../../kernel/bpf/map.ts';
import { BpfObject, type LoadedObject } from '../../kernel/bpf/object.ts';
import { cgroupRoot } from '../../kernel/cgroup.ts';
import { KernelError } from '../../kernel/error.ts';
import { namespaceCookie } from '../../kernel/netns.ts';
import { number32, number64 } from '../layouts.ts';
import { TypedMap } from '../typed-map.ts';
import { httpSettings } from './layouts.ts';

export interface HttpReaderOptions {
  readonly objectDir: string;
  readonly pinDir?: string;
  /** Maps of the other objects, where there are no pins. */
  readonly maps?: ReadonlyMap<string, BpfMap>;
  readonly maxEntries?: Readonly<Record<string, number>>;
  /** The control group whose sockets are looked at; by default all there are. */
  readonly cgroup?: string;
  /** What an earlier process has pinned is of no use any more: its programs use maps that are given up. */
  readonly anew?: boolean;
}

/** Which requests are said in events. */
export interface RequestEvents {
  readonly every: number;
  readonly perSecond: number;
}

const linkName = 'http_link';
const ownMaps = [
  'http_pods',
  'http_sockets',
  'http_programs',
  'http_streams',
  'http_partials',
  'http_no_partial',
  'http_answers',
  'http_no_answers',
  'http_settings',
  'http_limits',
  'http_turns',
  'http_requests',
];

/**
 * Owner of what reads HTTP requests on the sockets that pods accept (bpf/http.bpf.c). Its programs go on without this
 * process where there are pins: the link to the control group has one too.
 */
export class HttpReader {
  #object: LoadedObject;
  /** What was in force until `replace`. */
  #before: LoadedObject | undefined;
  readonly #link: ProgramLink;
  /** Where a stream has what of its own. */
  readonly #place: { readonly connection: number; readonly connectionEnd: number; readonly ifindex: number };

  /**
   * Loads the programs and puts them in their places. Sockets that an earlier process's programs read go on with those.
   * @throws {KernelError} `Verifier`, `Errno`, `Missing` where this machine cannot read requests: then no connection passes
   * that policy admits for its requests
   */
  static open(options: HttpReaderOptions): HttpReader {
    if (options.anew === true) removePins(options.pinDir);
    try {
      return HttpReader.#load(options);
    } catch (error) {
      if (!(error instanceof KernelError) || error.code !== 'IncompatiblePin') throw error;
      removePins(options.pinDir);
      return HttpReader.#load(options);
    }
  }

  static #load({ objectDir, pinDir, maps, maxEntries, cgroup }: HttpReaderOptions): HttpReader {
    const group = cgroup ?? cgroupRoot();
    const object = BpfObject.open(join(objectDir, 'http.bpf.o')).load({
      ...(pinDir === undefined ? {} : { pinDir }),
      ...(maps === undefined ? {} : { maps }),
      ...(maxEntries === undefined ? {} : { maxEntries }),
    });
    try {
      const sockets = object.map('http_sockets');
      putReader(object);
      attachToSockets(object.program('http_entry'), sockets);
      const pin = pinDir === undefined ? undefined : join(pinDir, linkName);
      return new HttpReader(object, ProgramLink.sockOps(object.program('http_accept'), group, pin));
    } catch (error) {
      object.close();
      throw error;
    }
  }

  private constructor(object: LoadedObject, link: ProgramLink) {
    this.#object = object;
    this.#link = link;
    const members = new Map(object.spec.btf.struct('http_stream')?.members.map((member) => [member.name, member]));
    const { offset: connection = 0, size = 0 } = members.get('connection') ?? {};
    this.#place = { connection, connectionEnd: connection + size, ifindex: members.get('ifindex')?.offset ?? 0 };
  }

  /**
   * Has the sockets of a pod looked at. A namespace whose path is gone was made known when it was not, or never will be.
   * @param ifindex Of the host side of its veth.
   * @throws {KernelError} `Errno`
   */
  addPod(netns: string, ifindex: number): void {
    try {
      this.#pods().set(namespaceCookie(netns), ifindex);
    } catch (error) {
      if (!(error instanceof KernelError) || error.data.errno !== 'ENOENT') throw error;
    }
  }

  /**
   * Which requests are said in events.
   * @param every Of so many that pass, one; 0: none.
   * @param perSecond On each CPU, in the long run, of those that pass and of those that are refused; 0: none is.
   */
  say({ every, perSecond }: RequestEvents): void {
    const intervalNs = perSecond === 0 ? 0n : BigInt(Math.round(1e9 / perSecond));
    const settings = new TypedMap(this.#object.map('http_settings'), number32, httpSettings);
    settings.set(0, { every, intervalNs });
  }

  removePod(ifindex: number): void {
    const pods = this.#pods();
    for (const [cookie, index] of [...pods.entries()]) if (index === ifindex) pods.delete(cookie);
    const streams = this.#object.map('http_streams');
    const answers = this.#object.map('http_answers');
    const partials = this.#object.map('http_partials');
    // Sockets that end after this say so to nobody.
    const { connection, connectionEnd, ifindex: place } = this.#place;
    for (const [key, stream] of [...streams.entries()]) {
      if (new DataView(stream.buffer, stream.byteOffset).getUint32(place, true) !== ifindex) continue;
      answers.delete(stream.slice(connection, connectionEnd));
      partials.delete(key.slice());
      streams.delete(key.slice());
    }
  }

  /**
   * Loads the programs once more, over the same maps but for those that are given.
   * @throws {KernelError} `Verifier`, `Errno`
   */
  async reload(maps: ReadonlyMap<string, BpfMap>): Promise<LoadedObject> {
    return await this.#object.spec.loadBeside({ maps: new Map([...this.#object.maps, ...maps]) });
  }

  /** Puts what was reloaded in force, for all sockets at once. @throws {KernelError} `Errno`: it may be called again */
  replace(object: LoadedObject): void {
    putReader(object);
    this.#link.replace(object.program('http_accept'));
    if (this.#object !== object) this.#before = this.#object;
    this.#object = object;
  }

  /** Gives up what was in force until `replace`. */
  retire(): void {
    this.#before?.close();
    this.#before = undefined;
  }

  close(): void {
    this.#link.close();
    this.retire();
    this.#object.close();
  }

  #pods(): TypedMap<bigint, number> {
    return new TypedMap(this.#object.map('http_pods'), number64, number32);
  }
}

/** From now on this object's program reads the requests of all sockets, also of those that were read before. */
function putReader(object: LoadedObject): void {
  const slot = Uint32Array.of(0);
  const program = Uint32Array.of(object.program('http_verdict').fd);
  object.map('http_programs').update(new Uint8Array(slot.buffer), new Uint8Array(program.buffer));
}

function removePins(pinDir: string | undefined): void {
  if (pinDir !== undefined) for (const name of [linkName, ...ownMaps]) rmSync(join(pinDir, name), { force: true });
}
