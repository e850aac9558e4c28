import { MyelinError } from '../../model/error.ts';

/**
 * The numbers of CNI spec 1.1, section 5 "Error" (0 to 99 are the spec's, 100 and up are ours).
 * A runtime acts on them: 3 means that nothing needs to be cleaned up, 11 that it may simply try again.
 */
export const cniErrorNumbers = {
  IncompatibleVersion: 1,
  UnsupportedField: 2,
  UnknownContainer: 3,
  InvalidEnvironment: 4,
  IoFailure: 5,
  DecodingFailure: 6,
  InvalidNetworkConfig: 7,
  TryAgainLater: 11,
  /** STATUS: no ADD can be served. */
  NotAvailable: 50,
  /** STATUS: no ADD can be served, and pods that run may lack some connectivity. */
  LimitedConnectivity: 51,
  /** The container, or its interface name, has an attachment already. */
  AlreadyAttached: 101,
  /** CHECK found the pod's network other than ADD left it. */
  CheckFailed: 102,
  /** The kernel refused a step of setting the pod's network up; everything done before it was undone. */
  SetupFailed: 103,
  /** GC could not remove everything; it can be called again. */
  CleanupIncomplete: 104,
  Internal: 199,
} as const;

export type CniErrorCode = keyof typeof cniErrorNumbers;

/** The "error" result structure, without its cniVersion. */
export interface CniErrorBody {
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/** A failure of a CNI operation, as the runtime will read it. */
export class CniError extends MyelinError<CniErrorCode> {
  /** The longer text; empty where the message says it all. */
  readonly details: string;

  /**
   * @param code Fixes the number that the runtime gets.
   * @param msg Short; becomes `msg`.
   * @param details What was found and what to do; becomes `details`.
   */
  constructor(code: CniErrorCode, msg: string, details = '', cause?: unknown) {
    super(code, msg, { cause, data: details === '' ? {} : { details } });
    this.details = details;
  }

  get body(): CniErrorBody {
    const body = { code: cniErrorNumbers[this.code], msg: this.message };
    return this.details === '' ? body : { ...body, details: this.details };
  }
}

/** @returns The error itself where it is a {@link CniError}; anything else as `code`, with its message as details. */
export function toCniError(error: unknown, code: CniErrorCode, msg: string): CniError {
  if (error instanceof CniError) return error;
  return new CniError(code, msg, error instanceof Error ? error.message : String(error), error);
}
