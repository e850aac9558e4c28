import { pad, raw, struct, u8, u16, u32, u64 } from '../../kernel/bpf/struct.ts';

/**
 * What the reader of requests shares with user space, as bpf/lib/http_layout.h lays it out. test/datapath/http.program.test.ts
 * compares the two.
 */

/** The part of `struct http_event` that follows its `struct event`. */
export const httpSaid = struct('http_said_tail', {
  status: u16,
  methodLength: u8,
  pathLength: u8,
  unsaid: u32,
  method: raw('u8[16]', 16, 1),
  path: raw('u8[128]', 128, 1),
});

export const httpSettings = struct('http_settings', { every: u32, pad: pad(4, 'u32'), intervalNs: u64 });
