import type { IpAddress } from '../model/address.ts';
import type { Prefix } from '../model/prefix.ts';
import type { Attachment, CniRequest } from './cni/request.ts';
import { hostInterfaceOf, keyOf, macOf } from './endpoint.ts';
import { Ipam, type IpamUsage } from './ipam.ts';
import { type EndpointRecord, type State, StateFile } from './store.ts';

export interface BooksOptions {
  readonly stateFile: string;
  readonly cidrs: readonly Prefix[];
  readonly coolDownMs: number;
  readonly mtu: number;
}

/**
 * What the node remembers of its endpoints and of its addresses, always changed together. Changes are made in memory and
 * count once {@link save} has ended.
 */
export class Books {
  /** Of the endpoints that are made from now on. */
  mtu: number;
  readonly #clock: () => number;
  readonly #file: StateFile;
  readonly #ipam: Ipam;
  readonly #records: Map<string, EndpointRecord>;

  /** @throws {StoreError} `CorruptState` @throws {IpamError} */
  static async open(options: BooksOptions, clock: () => number): Promise<Books> {
    const file = new StateFile(options.stateFile);
    return new Books(options, clock, file, await file.load());
  }

  private constructor(options: BooksOptions, clock: () => number, file: StateFile, state: State) {
    this.mtu = options.mtu;
    this.#clock = clock;
    this.#file = file;
    this.#records = new Map(state.endpoints.map((record) => [keyOf(record), record]));
    this.#ipam = new Ipam(options, state.leases, clock());
    for (const owner of this.#ipam.owners) if (!this.#records.has(owner)) this.#ipam.release(owner, clock());
  }

  get records(): EndpointRecord[] {
    return [...this.#records.values()];
  }

  find(attachment: Attachment): EndpointRecord | undefined {
    return this.#records.get(keyOf(attachment));
  }

  ofContainer(containerId: string): EndpointRecord[] {
    return this.records.filter((record) => record.containerId === containerId);
  }

  usage(): IpamUsage {
    return this.#ipam.usage(this.#clock());
  }

  /** Why a new pod would get no address now. */
  exhaustion(): string | undefined {
    return this.#ipam.exhaustion(this.#clock());
  }

  /** Gives a new attachment its addresses, names and MACs. @throws {IpamError} `Exhausted` */
  reserve(request: CniRequest): EndpointRecord {
    const { containerId, ifName, netns, pod, config } = request;
    const now = this.#clock();
    const addresses: readonly IpAddress[] = this.#ipam.allocate(keyOf(request), pod, now);
    return this.put({
      phase: 'partial',
      containerId,
      ifName,
      network: config.name,
      netns,
      ...(pod !== undefined && { pod }),
      addresses,
      mac: macOf(containerId, 'pod'),
      hostMac: macOf(containerId, 'host'),
      hostInterface: hostInterfaceOf(containerId),
      hostIndex: 0,
      mtu: this.mtu,
      createdAt: now,
    });
  }

  put(record: EndpointRecord): EndpointRecord {
    this.#records.set(keyOf(record), record);
    return record;
  }

  /** Forgets the record; its addresses cool down from now on. */
  close(record: EndpointRecord): void {
    this.#ipam.release(keyOf(record), this.#clock());
    this.#records.delete(keyOf(record));
  }

  /** @throws {StoreError} `WriteFailed` */
  save(): Promise<void> {
    return this.#file.save(() => ({ leases: this.#ipam.leases, endpoints: this.records }));
  }
}
