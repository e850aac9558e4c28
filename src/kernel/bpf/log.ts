import { asLibbpfPrint, libbpf } from '../ffi/libbpf.ts';
import { raw } from '../ffi/libc.ts';

const LIBBPF_DEBUG = 2;
const text = new Uint8Array(16384);
const decoder = new TextDecoder();

// libbpf has one print function for the whole process: what it says is kept only while somebody collects.
let collected: string[] | undefined;

const print = asLibbpfPrint((level, format, list) => {
  if (collected === undefined || level >= LIBBPF_DEBUG) return 0;
  const length = Math.min(raw.vsnprintf(text, text.length, format, list), text.length - 1);
  const line = decoder
    .decode(text.subarray(0, Math.max(0, length)))
    .replace(/^libbpf: /, '')
    .trim();
  if (line !== '') collected.push(line);
  return length;
});
// What is loaded on another thread would have to wait for this one with every line, most of them for nobody.
libbpf.set_print(null);

/** Runs `work` and returns its result with the lines that libbpf printed meanwhile; calls do not nest. */
export function withLibbpfMessages<T>(work: () => T): { result: T; messages: readonly string[] } {
  const messages: string[] = [];
  collected = messages;
  libbpf.set_print(print);
  try {
    return { result: work(), messages };
  } finally {
    libbpf.set_print(null);
    collected = undefined;
  }
}

const noise = /^(processed \d+ insns|verification time|stack depth|mark_precise|-- (BEGIN|END)|\d+: R\d+=|;|$)/;

/** @returns The lines of a verifier log that say why, at most `count`, oldest first. */
export function verifierSummary(log: string, count = 3): string {
  return log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => !noise.test(line))
    .slice(-count)
    .join('; ');
}
