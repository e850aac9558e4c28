/**
 * The one base of Myelin's typed errors: a stable code for programs, a message for people, data for logs.
 * A subclass fixes the union of codes of its room.
 */
export class MyelinError<Code extends string = string> extends Error {
  readonly code: Code;
  /** What the error was about (an object's name, an errno), flat, ready to be logged. */
  readonly data: Readonly<Record<string, unknown>>;

  /**
   * @param code Stable and documented; scripts match on it.
   * @param message What happened, where, and what to do next, in one sentence.
   * @param options `cause` keeps the original error; `data` is logged beside the message.
   */
  constructor(code: Code, message: string, options: { cause?: unknown; data?: Record<string, unknown> } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.data = options.data ?? {};
  }
}
