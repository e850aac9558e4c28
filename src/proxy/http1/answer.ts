import { isToken, isValue, lengthLimit, textOf, trimValue } from '../../policy/http/canonical.ts';
import type { Framing } from '../../policy/http/parse.ts';
import { limits } from '../limits.ts';
import { BodyReader } from './body.ts';

/**
 * `none`: nothing was asked. `head`, `body`: within an answer. `rest`: what comes is the answer, or something that is not
 * followed, until the server closes; there is no next answer.
 */
type Phase = 'none' | 'head' | 'body' | 'rest';

const headEnd = Buffer.from('\r\n\r\n', 'latin1');

/**
 * Follows what a server says to where each answer ends (RFC 9112 section 6.3). It decides nothing about answers: they pass
 * whatever they are. What can not be followed to the byte is not followed at all, so that no request may come behind it.
 */
export class AnswerReader {
  #phase: Phase = 'none';
  #method = '';
  /** Of the head, what has come. */
  #head: Buffer = Buffer.alloc(0);
  #body: BodyReader | undefined;
  /** Of the answer that is read, or was read last; 0 before its head has come. */
  status = 0;

  /** The request has been sent. Only where `done`. */
  expect(method: string): void {
    if (this.#phase !== 'none') return;
    this.#phase = 'head';
    this.#method = method;
    this.status = 0;
  }

  /** All that was asked has been answered. */
  get done(): boolean {
    return this.#phase === 'none';
  }

  /** No request may follow on this connection. */
  get last(): boolean {
    return this.#phase === 'rest';
  }

  /** @param bytes The next ones that the server said. */
  read(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length && this.#phase !== 'rest') {
      if (this.#phase === 'body' && this.#body !== undefined) {
        at += this.#body.read(bytes.subarray(at));
        if (this.#body.broken) this.#phase = 'rest';
        else if (this.#body.ended) this.#phase = 'none';
      } else if (this.#phase === 'head') at += this.#readHead(bytes.subarray(at));
      else this.#phase = 'rest';
    }
  }

  /** @returns How many of the bytes are the head's. */
  #readHead(bytes: Buffer): number {
    const before = this.#head.length;
    // Its end may have begun in the bytes before.
    const searched = Math.max(0, before - headEnd.length + 1);
    this.#head = before === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf(headEnd, searched);
    if (end < 0) {
      if (this.#head.length > limits.answerHead) this.#leave('rest');
      return bytes.length;
    }
    const answer = readAnswerHead(textOf(this.#head.subarray(0, end)), this.#method);
    const taken = end + headEnd.length - before;
    if (answer.status !== undefined) this.status = answer.status;
    if (answer.kind !== 'final') this.#leave(answer.kind === 'interim' ? 'head' : 'rest');
    else {
      this.#body = new BodyReader(answer.framing);
      this.#leave(this.#body.ended ? 'none' : 'body');
    }
    return taken;
  }

  #leave(phase: Phase): void {
    this.#phase = phase;
    this.#head = Buffer.alloc(0);
  }
}

type AnswerHead =
  | { readonly kind: 'interim' | 'rest'; readonly status?: number }
  | { readonly kind: 'final'; readonly status: number; readonly framing: Framing };

/** @param text Without the empty line. */
function readAnswerHead(text: string, method: string): AnswerHead {
  const [first = '', ...lines] = text.split('\r\n');
  const [, version, digits] = /^HTTP\/1\.([01]) ([1-9][0-9]{2})(?: [\x20-\x7e\t\x80-\xff]*)?$/.exec(first) ?? [];
  if (digits === undefined) return { kind: 'rest' };
  const status = Number(digits);
  const lengths = new Set<string>();
  const codings: string[] = [];
  for (const line of lines) {
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(0, colon));
    const value = trimValue(line.slice(colon + 1));
    if (!isToken(name) || !isValue(value)) return { kind: 'rest', status };
    const lower = name.toLowerCase();
    if (lower === 'content-length') for (const part of value.split(',')) lengths.add(trimValue(part));
    if (lower === 'transfer-encoding') codings.push(value.toLowerCase());
  }
  if (status === 101) return { kind: 'rest', status };
  if (status < 200) return { kind: 'interim', status };
  if (method === 'HEAD' || status === 204 || status === 304)
    return { kind: 'final', status, framing: { kind: 'none' } };
  const [length] = lengths;
  const [coding] = codings;
  if (coding !== undefined)
    return version === '1' && codings.length === 1 && coding === 'chunked' && length === undefined
      ? { kind: 'final', status, framing: { kind: 'chunked' } }
      : { kind: 'rest', status };
  if (length === undefined || lengths.size > 1 || !/^[0-9]{1,19}$/.test(length) || BigInt(length) > lengthLimit)
    return { kind: 'rest', status };
  return { kind: 'final', status, framing: { kind: 'length', length: BigInt(length) } };
}
