import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { errnoError } from '../error.ts';
import { layouts, libbpf, readName, structs, type TestRunOpts } from '../ffi/libbpf.ts';

/**
 * The members of struct __sk_buff (include/uapi/linux/bpf.h) that a test run takes in or gives back; for tc programs
 * the kernel refuses others (net/bpf/test_run.c, convert___skb_to_skb).
 */
export interface SkBuff {
  readonly mark: number;
  readonly priority: number;
  readonly ingressIfindex: number;
  readonly ifindex: number;
  /** Five words. */
  readonly cb: readonly number[];
  readonly tstamp: bigint;
  readonly gsoSegs: number;
  readonly gsoSize: number;
  readonly wireLength: number;
}

const skBuff = layouts.__sk_buff;

export interface TestRun {
  /** The packet, from its Ethernet header on; at least 14 bytes. */
  readonly data: Uint8Array;
  /** Absent members are 0. `ifindex` must be a device of this network namespace and `ingressIfindex` 0 or the same. */
  readonly ctx?: Partial<SkBuff>;
  /** How often the program runs over the same packet; `durationNs` is the mean. 1 by default. */
  readonly repeat?: number;
}

export interface TestResult {
  /** What the program returned: TC_ACT_OK = 0, TC_ACT_SHOT = 2, TC_ACT_REDIRECT = 7. */
  readonly retval: number;
  readonly dataOut: Uint8Array;
  readonly ctxOut: SkBuff;
  readonly durationNs: number;
}

/** What the kernel says of a loaded program (struct bpf_prog_info). */
export interface ProgramInfo {
  readonly id: number;
  readonly name: string;
  /** Instructions that the verifier walked: what counts against its limit of one million. */
  readonly verifiedInstructions: number;
  /** Bytes of machine code; 0 where the JIT is off. */
  readonly jitedBytes: number;
}

/** A loaded program. It belongs to its object and goes with it. */
export class BpfProgram {
  readonly name: string;
  readonly fd: number;

  constructor(fd: number, name: string) {
    this.fd = fd;
    this.name = name;
  }

  /**
   * Opens a program that is in the kernel, whoever loaded it: one that `queryTc` found.
   * @returns It, and what gives up the handle.
   * @throws {KernelError} `Errno` (ENOENT)
   */
  static openById(id: number): { readonly program: BpfProgram } & Disposable {
    const fd = libbpf.prog_get_fd_by_id(id);
    if (fd < 0) throw errnoError(-fd, 'open a program', `program ${id}`);
    return { program: new BpfProgram(fd, `${id}`), [Symbol.dispose]: () => closeSync(fd) };
  }

  /** @throws {KernelError} `Errno` */
  get info(): ProgramInfo {
    const at = layouts.bpf_prog_info;
    const info = new Uint8Array(at.size);
    const result = libbpf.obj_info(this.fd, info, Uint32Array.of(info.length));
    if (result < 0) throw errnoError(-result, 'read the properties', `program ${this.name}`);
    const view = new DataView(info.buffer);
    return {
      id: view.getUint32(at.id, true),
      jitedBytes: view.getUint32(at.jited_prog_len, true),
      name: readName(info, at.name),
      verifiedInstructions: view.getUint32(at.verified_insns, true),
    };
  }

  /**
   * Runs the program on one packet (BPF_PROG_TEST_RUN). Maps are read and written as in earnest; redirects are not done.
   * @throws {KernelError} `Errno`
   */
  testRun(run: TestRun): TestResult {
    // The kernel may hand out more than it took in: a program can push headers.
    const dataOut = new Uint8Array(run.data.length + 256);
    const ctxOut = new Uint8Array(skBuff.size);
    const options: TestRunOpts = {
      sz: structs.bpf_test_run_opts.size,
      data_in: run.data,
      data_out: koffi.address(dataOut),
      data_size_in: run.data.length,
      data_size_out: dataOut.length,
      ctx_in: encodeSkBuff(run.ctx ?? {}),
      ctx_out: koffi.address(ctxOut),
      ctx_size_in: skBuff.size,
      ctx_size_out: skBuff.size,
      retval: 0,
      repeat: run.repeat ?? 1,
      duration: 0,
      flags: 0,
      cpu: 0,
      batch_size: 0,
    };
    const result = libbpf.test_run(this.fd, options);
    if (result < 0) throw errnoError(-result, 'test-run', `program ${this.name}`);
    return {
      retval: options.retval,
      dataOut: dataOut.subarray(0, options.data_size_out),
      ctxOut: decodeSkBuff(ctxOut),
      durationNs: options.duration,
    };
  }
}

function encodeSkBuff(ctx: Partial<SkBuff>): Uint8Array {
  const bytes = new Uint8Array(skBuff.size);
  const view = new DataView(bytes.buffer);
  const at = skBuff;
  view.setUint32(at.mark, ctx.mark ?? 0, true);
  view.setUint32(at.priority, ctx.priority ?? 0, true);
  view.setUint32(at.ingress_ifindex, ctx.ingressIfindex ?? 0, true);
  view.setUint32(at.ifindex, ctx.ifindex ?? 0, true);
  for (const [i, word] of (ctx.cb ?? []).entries()) view.setUint32(at.cb + 4 * i, word, true);
  view.setBigUint64(at.tstamp, ctx.tstamp ?? 0n, true);
  view.setUint32(at.gso_segs, ctx.gsoSegs ?? 0, true);
  view.setUint32(at.gso_size, ctx.gsoSize ?? 0, true);
  view.setUint32(at.wire_len, ctx.wireLength ?? 0, true);
  return bytes;
}

function decodeSkBuff(bytes: Uint8Array): SkBuff {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const word = (offset: number) => view.getUint32(offset, true);
  const at = skBuff;
  return {
    mark: word(at.mark),
    priority: word(at.priority),
    ingressIfindex: word(at.ingress_ifindex),
    ifindex: word(at.ifindex),
    cb: Array.from({ length: 5 }, (_, i) => word(at.cb + 4 * i)),
    tstamp: view.getBigUint64(at.tstamp, true),
    gsoSegs: word(at.gso_segs),
    gsoSize: word(at.gso_size),
    wireLength: word(at.wire_len),
  };
}
