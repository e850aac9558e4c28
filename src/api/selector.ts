import { MyelinError } from '../model/error.ts';
import { type Labels, type Selector, type SelectorRequirement, selects } from '../model/labels.ts';
import { type AnyObject, valueAt } from './json.ts';

export type SelectorErrorCode = 'InvalidSelector';

const identifier = /^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$/;

/**
 * Reads a label selector in the text form of the API: `app=web,tier in (a,b),env!=test,!old,new`.
 * @throws {MyelinError} `InvalidSelector`
 */
export function parseLabelSelector(text: string): Selector {
  const matchExpressions = splitOutsideParentheses(text)
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(parseRequirement);
  return { matchExpressions };
}

function splitOutsideParentheses(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '(') depth++;
    else if (text[i] === ')') depth--;
    else if (text[i] === ',' && depth === 0) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

function parseRequirement(part: string): SelectorRequirement {
  const set = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set?.[1] !== undefined && set[3] !== undefined)
    return {
      key: checkKey(set[1], part),
      operator: set[2] === 'in' ? 'In' : 'NotIn',
      values: set[3].split(',').map((value) => checkValue(value.trim(), part)),
    };
  const equality = /^([^=!\s]+)\s*(==|=|!=)\s*(\S*)$/.exec(part);
  if (equality?.[1] !== undefined && equality[3] !== undefined)
    return {
      key: checkKey(equality[1], part),
      operator: equality[2] === '!=' ? 'NotIn' : 'In',
      values: [checkValue(equality[3], part)],
    };
  if (part.startsWith('!')) return { key: checkKey(part.slice(1).trim(), part), operator: 'DoesNotExist' };
  return { key: checkKey(part, part), operator: 'Exists' };
}

function checkKey(key: string, part: string): string {
  if (!identifier.test(key)) throw unreadable('label', part);
  return key;
}

function checkValue(value: string, part: string): string {
  if (value !== '' && !identifier.test(value)) throw unreadable('label', part);
  return value;
}

function unreadable(kind: string, part: string): MyelinError<SelectorErrorCode> {
  return new MyelinError('InvalidSelector', `unable to parse ${kind} selector requirement: ${JSON.stringify(part)}`);
}

/** One requirement of a field selector. */
export interface FieldRequirement {
  readonly field: string;
  readonly equal: boolean;
  readonly value: string;
}

/**
 * Reads a field selector: `spec.nodeName=n1,status.phase!=Failed`; `\` escapes a comma, an equals sign or itself.
 * @throws {MyelinError} `InvalidSelector`
 */
export function parseFieldSelector(text: string): FieldRequirement[] {
  const parts = text.match(/(\\.|[^,\\])+/g) ?? [];
  return parts.map((part) => {
    const match = /^([\w.$/-]+?)\s*(!=|==|=)((?:\\[\\,=]|[^\\,=])*)$/.exec(part.trim());
    const [, field, operator, value] = match ?? [];
    if (field === undefined || value === undefined) throw unreadable('field', part);
    return { field, equal: operator !== '!=', value: value.replaceAll(/\\(.)/g, '$1') };
  });
}

/** @returns A test for objects: labels, fields and namespace together. */
export function matcher(options: {
  readonly labels?: Selector | undefined;
  readonly fields?: readonly FieldRequirement[] | undefined;
  readonly namespace?: string | undefined;
}): (object: AnyObject) => boolean {
  const { labels, fields = [], namespace } = options;
  return (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) &&
    (labels === undefined || selects(labels, object.metadata.labels ?? noLabels)) &&
    fields.every(({ field, equal, value }) => (fieldText(object, field) === value) === equal);
}

const noLabels: Labels = {};

function fieldText(object: AnyObject, field: string): string {
  const value = valueAt(object, field.split('.'));
  if (value === undefined || value === null)
    return field === 'spec.unschedulable' || field === 'spec.hostNetwork' ? 'false' : '';
  return typeof value === 'object' ? '' : String(value);
}
