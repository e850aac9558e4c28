import { MyelinError } from '../../model/error.ts';
import type { FieldIssue } from '../issue.ts';

/** The API's own reasons (`metav1.StatusReason`), and what can go wrong before there is an answer. */
export type ApiErrorCode =
  | 'BadRequest'
  | 'Unauthorized'
  | 'Forbidden'
  | 'NotFound'
  | 'AlreadyExists'
  | 'Conflict'
  | 'Gone'
  /** The resourceVersion is older than the server's history: list again. */
  | 'Expired'
  | 'Invalid'
  | 'MethodNotAllowed'
  | 'NotAcceptable'
  | 'RequestEntityTooLarge'
  | 'UnsupportedMediaType'
  | 'TooManyRequests'
  | 'Timeout'
  | 'ServerTimeout'
  | 'InternalError'
  | 'ServiceUnavailable'
  /** No connection, or one that broke. */
  | 'Unreachable'
  /** An answer that is not what the API promises, or an object that this program does not understand. */
  | 'Malformed'
  | 'Aborted'
  /** A kubeconfig that cannot be used. */
  | 'Kubeconfig';

export class ApiError extends MyelinError<ApiErrorCode> {
  /** The HTTP status; 0 where there was no answer. */
  readonly status: number;
  /** What is wrong with which field, where the server said so. */
  readonly causes: readonly FieldIssue[];

  constructor(
    code: ApiErrorCode,
    message: string,
    options: { status?: number; causes?: readonly FieldIssue[]; cause?: unknown; data?: Record<string, unknown> } = {},
  ) {
    super(code, message, options);
    this.status = options.status ?? 0;
    this.causes = options.causes ?? [];
  }
}

/** Whether `error` is an ApiError of one of these codes. */
export function isApiError(error: unknown, ...codes: ApiErrorCode[]): error is ApiError {
  return error instanceof ApiError && (codes.length === 0 || codes.includes(error.code));
}
