/** What a prober is asked, one JSON value a line on its standard input. Milliseconds throughout. */
export type ProbeRequest = {
  readonly id: number;
  /** An address, or a name that the prober's own resolver knows. */
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
} & (
  | { readonly kind: 'tcp' }
  /** Sends `hostname\n` and waits for any answer from there. Sent again every 250 ms, for the first may be lost to a policy in change. */
  | { readonly kind: 'udp' }
  | {
      readonly kind: 'http';
      readonly path: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly tls?: boolean;
    }
  /** grpc.health.v1 */
  | { readonly kind: 'grpc'; readonly service: string }
);

/** What it answers, one JSON value a line on its standard output, in the order in which the probes end. */
export interface ProbeAnswer {
  readonly id: number;
  /** Connected; answered (udp); status below 400 (http); serving (grpc). */
  readonly ok: boolean;
  readonly ms: number;
  /** HTTP status. */
  readonly status?: number;
  /** The first KiB of what came back. */
  readonly body?: string;
  /** `timeout`, or the errno's name, or what was wrong with the answer. */
  readonly error?: string;
}
