import koffi, { node } from 'koffi';
import { errnoError } from '../error.ts';
import { lastErrno, raw } from '../ffi/libc.ts';
import type { BpfMap } from './map.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const pageSize = 4096;
const mapFailed = 0xffff_ffff_ffff_ffffn;

// Record header: u32 length with two flag bits, u32 page offset (kernel/bpf/ringbuf.c, struct bpf_ringbuf_hdr).
const headerSize = 8;
const busyBit = 1 << 31;
const discardBit = 1 << 30;

/**
 * Reads a BPF ring buffer: the event loop watches the map, records are read from shared memory without a copy.
 * A ring has one reader; a second one, in any process, would take records from the first.
 */
export class RingBuffer {
  readonly #onRecord: (record: Uint8Array) => void;
  readonly #size: number;
  readonly #mappings: readonly { readonly address: bigint; readonly length: number }[];
  readonly #consumer: BigUint64Array;
  readonly #producer: BigUint64Array;
  readonly #data: Uint8Array;
  readonly #headers: Int32Array;
  #poll: node.PollHandle | undefined;
  #reading = false;

  /**
   * @param onRecord Called for each record, in order. The bytes are the ring's own: they are valid until it returns.
   * @throws {KernelError} `Errno`
   */
  constructor(map: BpfMap, onRecord: (record: Uint8Array) => void) {
    this.#onRecord = onRecord;
    this.#size = map.info.maxEntries;
    // One page with the reader's position, writable; then the writer's position, and the data twice in a row, so that
    // a record that wraps around is contiguous.
    const consumer = mapMemory(map, pageSize, PROT_READ | PROT_WRITE, 0);
    const rest = mapMemory(map, pageSize + 2 * this.#size, PROT_READ, pageSize);
    this.#mappings = [consumer, rest];
    this.#consumer = new BigUint64Array(consumer.memory, 0, 1);
    this.#producer = new BigUint64Array(rest.memory, 0, 1);
    this.#data = new Uint8Array(rest.memory, pageSize, 2 * this.#size);
    this.#headers = new Int32Array(rest.memory, pageSize, this.#size / 2);
    this.#poll = node.poll(map.fd, { readable: true }, () => this.drain());
  }

  /**
   * Reads what is there now, without waiting for the event loop.
   * @param limit So that a flood does not starve the process; the event loop comes back for the rest.
   * @returns Records read, discarded ones not counted.
   */
  drain(limit = 4096): number {
    let count = 0;
    // Not from inside the callback, whose record would come again.
    while (!this.#reading && count < limit && this.pending > 0) {
      const position = Atomics.load(this.#consumer, 0);
      const start = Number(position % BigInt(this.#size));
      const header = Atomics.load(this.#headers, start / 4);
      // The writer has reserved this one and not yet submitted it.
      if (header & busyBit) break;
      const length = header & ~(busyBit | discardBit);
      this.#reading = true;
      try {
        if (!(header & discardBit)) {
          count++;
          this.#onRecord(this.#data.subarray(start + headerSize, start + headerSize + length));
        }
      } finally {
        this.#reading = false;
        // The callback may have closed the ring, and the memory is not there any more.
        if (this.#poll !== undefined)
          Atomics.store(this.#consumer, 0, position + BigInt(Math.ceil((length + headerSize) / 8) * 8));
      }
    }
    return count;
  }

  /** Bytes that wait to be read. */
  get pending(): number {
    return this.#poll === undefined ? 0 : Number(Atomics.load(this.#producer, 0) - Atomics.load(this.#consumer, 0));
  }

  /** Stops reading. Records not read yet stay in the ring for the next reader. */
  close(): void {
    if (this.#poll === undefined) return;
    this.#poll.close();
    this.#poll = undefined;
    for (const { address, length } of this.#mappings) raw.munmap(address, length);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function mapMemory(map: BpfMap, length: number, protection: number, offset: number) {
  const address = raw.mmap(null, length, protection, MAP_SHARED, map.fd, offset);
  if (BigInt.asUintN(64, address) === mapFailed) throw errnoError(lastErrno(), 'map the memory', `map ${map.name}`);
  return { address, length, memory: koffi.view(address, length) };
}
