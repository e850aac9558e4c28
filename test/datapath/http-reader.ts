import { join } from 'node:path';
import type { BpfMap } from '../../src/kernel/bpf/map.ts';
import { BpfObject, type LoadedObject } from '../../src/kernel/bpf/object.ts';
import { type DropReason, dropReasonFromCode } from '../../src/model/verdict.ts';
import { textOf } from '../../src/policy/http/canonical.ts';
import { roomForRequests } from './maps.ts';
import { objectDir } from './node.ts';

/** A head as the kernel's programs have read it. */
export interface KernelHead {
  readonly kind: 'head';
  readonly length: number;
  readonly method: string;
  readonly target: string;
  readonly path: string;
  readonly host?: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly version: '1.0' | '1.1';
  readonly framing: 'none' | 'chunked' | bigint;
  readonly upgrade: boolean;
}

/** What the programs made of a message of a stream. */
export type Message =
  | KernelHead
  | { readonly kind: 'body'; readonly length: number; readonly last: boolean }
  | { readonly kind: 'refused'; readonly reason: DropReason };

const flags = { is10: 1, hasHost: 2, hasLength: 4, chunked: 8, upgrades: 16 } as const;
const key = new Uint8Array(36);
const zero = new Uint8Array(4);
const inHead = 0;
const last = 8;

/** What reads requests in the kernel (bpf/http_test.bpf.c), fed with bytes piece by piece. */
export class KernelReader {
  readonly object: LoadedObject;
  readonly #bytes: BpfMap;
  readonly #streams: BpfMap;
  readonly #request: BpfMap;
  readonly #at: (name: string) => number;
  readonly #streamAt: (name: string) => number;

  constructor(maxEntries: Readonly<Record<string, number>> = {}) {
    const spec = BpfObject.open(join(objectDir, 'http_test.bpf.o'));
    const placeIn = (struct: string) => {
      const members = new Map(spec.btf.struct(struct)?.members.map(({ name, offset }) => [name, offset]));
      return (name: string) => members.get(name) ?? Number.NaN;
    };
    this.#at = placeIn('http_request');
    this.#streamAt = placeIn('http_stream');
    this.object = spec.load({
      maxEntries: { ct: 16, policy: 1024, peers: 16, http_sockets: 16, ...roomForRequests, ...maxEntries },
    });
    this.#bytes = this.object.map('http_test_bytes');
    this.#streams = this.object.map('http_streams');
    this.#request = this.object.map('http_test_request');
    this.reset();
  }

  /** Begins with another connection. */
  reset(): void {
    this.#streams.update(key, new Uint8Array(this.#streams.info.valueSize));
  }

  /** @returns What the messages are that these bytes complete; after a refusal there is nothing more. */
  feed(piece: Uint8Array): Message[] {
    const messages: Message[] = [];
    const all = new Uint8Array(this.#bytes.info.valueSize);
    all.set(piece.subarray(0, all.length));
    this.#bytes.update(zero, all);
    for (let at = 0; at < piece.length; ) {
      const length = this.#run('http_test_parse', at, piece.length);
      if (length < 0 || length > piece.length - at)
        throw new RangeError(`the program says ${length} of ${piece.length - at}`);
      if (length === 0) break;
      const message = this.#message(length);
      messages.push(message);
      if (message.kind === 'refused') break;
      at += length;
    }
    return messages;
  }

  /** @returns The alternatives of the rule set's matcher that the last head is: 64 a word. */
  match(set: number): BigUint64Array {
    this.#run('http_test_match', set);
    const bytes = this.#request.lookup(zero) ?? new Uint8Array();
    return new BigUint64Array(bytes.slice(this.#at('bits'), this.#at('bits') + 128).buffer);
  }

  /** Says that so much of a body is still to come. */
  setRemaining(remaining: bigint): void {
    this.#change((view) => {
      view.setUint8(this.#streamAt('phase'), 1);
      view.setBigUint64(this.#streamAt('remaining'), remaining, true);
    });
  }

  remaining(): bigint {
    return this.#stream().getBigUint64(this.#streamAt('remaining'), true);
  }

  close(): void {
    this.object.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #stream(): DataView {
    const value = this.#streams.lookup(key) ?? new Uint8Array();
    return new DataView(value.buffer, value.byteOffset, value.byteLength);
  }

  #change(write: (view: DataView) => void): void {
    const view = this.#stream();
    write(view);
    this.#streams.update(key, new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
  }

  #run(program: string, ...given: readonly number[]): number {
    const [first = 0, second = 0] = given;
    const { retval } = this.object
      .program(program)
      .testRun({ data: new Uint8Array(64), ctx: { cb: [first, second, 0, 0, 0] } });
    return retval | 0;
  }

  #message(length: number): Message {
    const before = this.#stream();
    const head = before.getUint8(this.#streamAt('phase')) === inHead;
    const isLast = (before.getUint8(this.#streamAt('flags')) & last) !== 0;
    const code = this.#run('http_test_message');
    if (code !== 0) return { kind: 'refused', reason: dropReasonFromCode(code) ?? 'MALFORMED' };
    return head ? this.#head() : { kind: 'body', length, last: isLast };
  }

  #head(): KernelHead {
    const bytes = this.#request.lookup(zero) ?? new Uint8Array();
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const word = (name: string) => view.getUint32(this.#at(name), true);
    const text = (part: 'head' | 'target', from: number, length: number) =>
      textOf(bytes.subarray(this.#at(part) + from, this.#at(part) + from + length));
    const short = (line: number, member: number) => view.getUint16(this.#at('line') + line * 8 + member * 2, true);
    const has = (flag: number) => (word('flags') & flag) !== 0;
    return {
      kind: 'head',
      length: word('length'),
      method: text('head', 0, word('method_length')),
      target: text('target', 0, word('target_length')),
      path: text('target', 0, word('path_length')),
      ...(has(flags.hasHost) ? { host: text('head', word('host'), word('host_length')).toLowerCase() } : {}),
      headers: Array.from({ length: word('lines') }, (_, line) => [
        text('head', short(line, 0), short(line, 1)).toLowerCase(),
        text('head', short(line, 2), short(line, 3)),
      ]),
      version: has(flags.is10) ? '1.0' : '1.1',
      framing: has(flags.chunked)
        ? 'chunked'
        : has(flags.hasLength)
          ? view.getBigUint64(this.#at('content_length'), true)
          : 'none',
      upgrade: has(flags.upgrades),
    };
  }
}
