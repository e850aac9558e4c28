import type { FieldIssue, FieldIssueReason } from '../issue.ts';
import { isList, isObject, objectOr, stringOr } from '../json.ts';
import { ApiError, type ApiErrorCode } from './error.ts';

const byStatus: Readonly<Record<number, ApiErrorCode>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  406: 'NotAcceptable',
  409: 'Conflict',
  410: 'Expired',
  413: 'RequestEntityTooLarge',
  415: 'UnsupportedMediaType',
  422: 'Invalid',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

/** Reasons that tell more than their HTTP status. */
const finer: readonly ApiErrorCode[] = ['AlreadyExists', 'Gone', 'ServerTimeout'];

/** Makes an error of a Status object, or of whatever else came with an HTTP status that is none of success. */
export function failureOf(status: number, body: unknown, context: string): ApiError {
  const answer = objectOr(body);
  const reason = stringOr(answer.reason, '');
  const code = finer.find((name) => name === reason) ?? byStatus[status] ?? 'InternalError';
  const message = stringOr(answer.message, `HTTP status ${status}`);
  return new ApiError(code, `${context}: ${message}`, { status, causes: causesOf(answer.details), data: { reason } });
}

function causesOf(details: unknown): FieldIssue[] {
  const { causes } = objectOr(details);
  return (isList(causes) ? causes : []).filter(isObject).map(({ field, reason, message }) => ({
    field: stringOr(field, ''),
    reason: knownReason(reason),
    message: stringOr(message, ''),
  }));
}

const reasons: readonly FieldIssueReason[] = [
  'FieldValueInvalid',
  'FieldValueRequired',
  'FieldValueNotSupported',
  'FieldValueDuplicate',
  'FieldValueForbidden',
  'FieldValueTypeInvalid',
  'FieldValueTooLong',
  'FieldValueTooMany',
  'FieldValueNotFound',
];

function knownReason(value: unknown): FieldIssueReason {
  return reasons.find((reason) => reason === value) ?? 'FieldValueInvalid';
}
