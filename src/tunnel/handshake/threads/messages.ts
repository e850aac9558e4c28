import type { KeyObject } from 'node:crypto';
import type { LinkFacts } from '../link.ts';

/** A certificate with its key and whom it trusts, as a thread is given it; named by whoever gives it. */
export interface ThreadIdentity {
  readonly name: string;
  /** PEM, leaf first. */
  readonly chain: string;
  /** Passed by reference: its bytes are in no message. */
  readonly privateKey: KeyObject;
  /** PEM. */
  readonly roots: string;
}

/** From the agent's own thread to one that does TLS. `link` is the sender's number for a connection. */
export type ThreadRequest =
  | { readonly type: 'identity'; readonly identity: ThreadIdentity }
  | { readonly type: 'forget'; readonly name: string }
  | {
      readonly type: 'dial';
      readonly link: number;
      readonly host: string;
      readonly port: number;
      readonly serverName: string;
      readonly protocol: string;
      /** Name of the identity to be shown. */
      readonly identity: string;
    }
  /** A connection that was accepted; `fd` is the thread's from here on. */
  | { readonly type: 'accept'; readonly link: number; readonly fd: number }
  /** Answers `asked`; without an identity there is nobody of that name. */
  | { readonly type: 'named'; readonly link: number; readonly identity: string | undefined }
  | { readonly type: 'write'; readonly link: number; readonly data: string | Uint8Array }
  | {
      readonly type: 'export';
      readonly link: number;
      readonly length: number;
      readonly label: string;
      readonly context: Uint8Array;
    }
  | { readonly type: 'end'; readonly link: number }
  | { readonly type: 'destroy'; readonly link: number };

/** What a TLS library or a socket says went wrong. */
export interface ThreadFailure {
  readonly message: string;
  readonly code: string;
  readonly reason: string | undefined;
}

/** From a thread that does TLS. */
export type ThreadReport =
  /** The descriptor of `accept` is the thread's to close. */
  | { readonly type: 'taken'; readonly link: number }
  /** The client asks for somebody. */
  | { readonly type: 'asked'; readonly link: number; readonly serverName: string }
  | { readonly type: 'connected'; readonly link: number }
  | { readonly type: 'secure'; readonly link: number; readonly facts: LinkFacts }
  | { readonly type: 'data'; readonly link: number; readonly chunk: Uint8Array }
  | { readonly type: 'exported'; readonly link: number; readonly material: Uint8Array | undefined }
  /** Said once for a link, last. */
  | { readonly type: 'closed'; readonly link: number; readonly failure: ThreadFailure | undefined };
