import { MyelinError } from '../../model/error.ts';
import type { FieldIssue } from '../issue.ts';
import { formatIssue } from '../validate.ts';

/** What a refusal is about, in the API's words. */
export interface Target {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
}

interface Details {
  name?: string;
  group?: string;
  kind?: string;
  uid?: string;
  causes?: readonly { reason: string; message: string; field: string }[];
  retryAfterSeconds?: number;
}

/** A `metav1.Status`. */
export interface Status {
  readonly kind: 'Status';
  readonly apiVersion: 'v1';
  readonly metadata: Record<string, never>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: string;
  readonly details?: Details;
  readonly code: number;
}

/** A request that is refused, with the answer to give. */
export class StatusError extends MyelinError {
  readonly status: Status;

  constructor(code: number, reason: string, message: string, details?: Details, cause?: unknown) {
    super(reason, message, { cause });
    this.status = {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message,
      reason,
      ...(details === undefined ? {} : { details }),
      code,
    };
  }
}

export function success(details: Details): Status {
  return { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details, code: 200 };
}

/** `pods` or `deployments.apps`: how messages name a resource. */
export function qualifiedPlural(target: Target): string {
  return target.group === '' ? target.plural : `${target.plural}.${target.group}`;
}

function about(target: Target, name: string): Details {
  return { name, ...(target.group === '' ? {} : { group: target.group }), kind: target.plural };
}

export function badRequest(message: string, cause?: unknown): StatusError {
  return new StatusError(400, 'BadRequest', message, undefined, cause);
}

export function notFound(target: Target, name: string): StatusError {
  return new StatusError(
    404,
    'NotFound',
    `${qualifiedPlural(target)} ${JSON.stringify(name)} not found`,
    about(target, name),
  );
}

/** A path that leads to nothing at all. */
export function noSuchPath(): StatusError {
  return new StatusError(404, 'NotFound', 'the server could not find the requested resource', {});
}

export function methodNotAllowed(): StatusError {
  return new StatusError(
    405,
    'MethodNotAllowed',
    'the server does not allow this method on the requested resource',
    {},
  );
}

export function alreadyExists(target: Target, name: string): StatusError {
  return new StatusError(
    409,
    'AlreadyExists',
    `${qualifiedPlural(target)} ${JSON.stringify(name)} already exists`,
    about(target, name),
  );
}

export function conflict(
  target: Target,
  name: string,
  why = 'the object has been modified; please apply your changes to the latest version and try again',
  causes?: Details['causes'],
): StatusError {
  return new StatusError(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualifiedPlural(target)} ${JSON.stringify(name)}: ${why}`,
    { ...about(target, name), ...(causes === undefined ? {} : { causes }) },
  );
}

export function forbidden(target: Target, name: string, why: string): StatusError {
  const named = name === '' ? '' : ` ${JSON.stringify(name)}`;
  return new StatusError(
    403,
    'Forbidden',
    `${qualifiedPlural(target)}${named} is forbidden: ${why}`,
    about(target, name),
  );
}

/** @param issues At least one; each becomes a cause with its field path. */
export function invalid(target: Target, name: string, issues: readonly FieldIssue[]): StatusError {
  const kind = target.group === '' ? target.kind : `${target.kind}.${target.group}`;
  const lines = issues.map(formatIssue);
  const text = lines.length === 1 ? lines[0] : `[${lines.join(', ')}]`;
  return new StatusError(422, 'Invalid', `${kind} ${JSON.stringify(name)} is invalid: ${text}`, {
    ...about(target, name),
    kind: target.kind,
    causes: issues.map(({ reason, message, field }) => ({ reason, message, field })),
  });
}

/** Unknown fields under strict validation: the API's own words for them, and their paths as causes. */
export function strictDecoding(target: Target, name: string, issues: readonly FieldIssue[]): StatusError {
  const lines = issues.map((issue) => issue.message).join(', ');
  return new StatusError(
    400,
    'BadRequest',
    `${target.kind} in version ${JSON.stringify(target.version)} cannot be handled as a ${target.kind}: strict decoding error: ${lines}`,
    {
      ...about(target, name),
      kind: target.kind,
      causes: issues.map(({ message, field }) => ({ reason: 'FieldValueInvalid', message, field })),
    },
  );
}

/** The resource version is older than the history that is kept: the client lists again. */
export function expired(message: string): StatusError {
  return new StatusError(410, 'Expired', message);
}

/** The resource version is newer than anything this server has written. */
export function tooLargeResourceVersion(asked: number, current: number): StatusError {
  return new StatusError(504, 'Timeout', `Too large resource version: ${asked}, current: ${current}`, {
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version', field: '' }],
    retryAfterSeconds: 1,
  });
}
