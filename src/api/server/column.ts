import { type AnyObject, isList, isObject, type JsonObject, stringOr, valueAt } from '../json.ts';

export type Cell = string | number | boolean | null;

/** One column of `kubectl get`. */
export interface Column {
  readonly name: string;
  readonly type: string;
  readonly format?: string;
  readonly description?: string;
  /** 0 always; more only with `-o wide`. */
  readonly priority: number;
  cell(object: AnyObject, now: number): Cell;
}

type CellOf = Column['cell'];

/** Makes a column; by default one of strings that is always shown. */
export function column(
  name: string,
  cell: CellOf,
  options: { wide?: boolean; type?: string; format?: string } = {},
): Column {
  return {
    name,
    type: options.type ?? 'string',
    ...(options.format === undefined ? {} : { format: options.format }),
    priority: options.wide === true ? 1 : 0,
    cell,
  };
}

/** For columns that only `-o wide` shows. */
export const wide = { wide: true };
export const nameColumn = column('Name', ({ metadata }) => metadata.name ?? '', { format: 'name' });
export const ageColumn = column('Age', ({ metadata }, now) => age(metadata.creationTimestamp, now));

/** @returns `5s`, `3m20s`, `2h`, `3d`: as kubectl prints the time since `timestamp`. */
export function age(timestamp: unknown, now: number): string {
  const since = typeof timestamp === 'string' ? Date.parse(timestamp) : Number.NaN;
  if (Number.isNaN(since)) return '<unknown>';
  const seconds = Math.max(0, Math.floor((now - since) / 1000));
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3600), Math.floor(seconds / 86400)];
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big}${bigUnit}` : `${big}${bigUnit}${small}${smallUnit}`;
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return pair(minutes, 'm', seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return pair(hours, 'h', minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  if (days < 8) return pair(days, 'd', hours % 24, 'h');
  return days < 365 * 2 ? `${days}d` : `${Math.floor(days / 365)}y`;
}

// Reading objects of which the fields are not known to be there.
export const at = (object: JsonObject, ...path: PropertyKey[]) => valueAt(object, path);
export const textAt = (object: JsonObject, ...path: PropertyKey[]) => stringOr(at(object, ...path), '');
export const listAt = (object: JsonObject, ...path: PropertyKey[]): JsonObject[] => {
  const value = at(object, ...path);
  return isList(value) ? value.filter(isObject) : [];
};
export const numberAt = (object: JsonObject, ...path: PropertyKey[]) => Number(at(object, ...path) ?? 0);
/** As kubectl writes what is empty. */
export const orNone = (text: string) => (text === '' ? '<none>' : text);
