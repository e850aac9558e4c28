import type { FieldIssue } from '../../issue.ts';
import { duplicateValue, invalidValue, requiredValue } from '../../validate.ts';

// The patterns and messages are those of k8s.io/apimachinery/pkg/util/validation.

const label = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const label1123 = new RegExp(`^${label}$`);
const subdomain1123 = new RegExp(`^${label}(\\.${label})*$`);
const label1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const qualified = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;
const serviceName = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

/** @returns What is wrong with `text`, or nothing. */
export type NameRule = (text: string) => string | undefined;

const tooLong = (limit: number) => `must be no more than ${limit} characters`;

export const dnsLabel: NameRule = (text) => {
  if (text.length > 63) return tooLong(63);
  if (!label1123.test(text))
    return "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc')";
  return undefined;
};

export const dnsSubdomain: NameRule = (text) => {
  if (text.length > 253) return tooLong(253);
  if (!subdomain1123.test(text))
    return "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com')";
  return undefined;
};

export const dnsLabel1035: NameRule = (text) => {
  if (text.length > 63) return tooLong(63);
  if (!label1035.test(text))
    return "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123')";
  return undefined;
};

/** A name that may stand in a URL path as one segment: what kinds without a rule of their own ask for. */
export const pathSegment: NameRule = (text) => {
  if (text.length > 253) return tooLong(253);
  if (text === '.' || text === '..') return `may not be '${text}'`;
  if (/[/%]/.test(text)) return "may not contain '/' or '%'";
  return undefined;
};

/** The key of a label or annotation: `[prefix/]name`. */
export const qualifiedName: NameRule = (text) => {
  const parts = text.split('/');
  const [first = '', second] = parts;
  if (parts.length > 2)
    return "a qualified name must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
  if (second !== undefined) {
    if (first === '') return 'prefix part must be non-empty';
    const wrong = dnsSubdomain(first);
    if (wrong !== undefined) return `prefix part ${wrong}`;
  }
  const name = second ?? first;
  if (name === '') return 'name part must be non-empty';
  if (name.length > 63) return `name part ${tooLong(63)}`;
  if (!qualified.test(name))
    return "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName', or 'my.name', or '123-abc')";
  return undefined;
};

export const labelValue: NameRule = (text) => {
  if (text.length > 63) return tooLong(63);
  if (text !== '' && !qualified.test(text))
    return "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345')";
  return undefined;
};

/** The name of a container port (IANA service name, RFC 6335). */
export const portName: NameRule = (text) => {
  if (text.length > 15) return tooLong(15);
  if (!serviceName.test(text)) return 'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)';
  if (!/[a-z]/.test(text)) return 'must contain at least one letter (a-z)';
  if (text.includes('--')) return 'must not contain consecutive hyphens';
  return undefined;
};

const portNumberMessage = 'must be between 1 and 65535, inclusive';

export function checkPortNumber(field: string, port: number): FieldIssue[] {
  return port >= 1 && port <= 65535 ? [] : [invalidValue(field, port, portNumberMessage)];
}

/** @param port A number, or the name of a container port. */
export function checkPort(field: string, port: number | string): FieldIssue[] {
  return typeof port === 'number' ? checkPortNumber(field, port) : checkName(field, port, portName);
}

export function checkName(field: string, text: string | undefined, rule: NameRule): FieldIssue[] {
  if (text === undefined || text === '') return [requiredValue(field)];
  const wrong = rule(text);
  return wrong === undefined ? [] : [invalidValue(field, text, wrong)];
}

export function checkLabels(field: string, labels: Readonly<Record<string, string>> | undefined): FieldIssue[] {
  return Object.entries(labels ?? {}).flatMap(([key, value]) => {
    const wrongKey = qualifiedName(key);
    const wrongValue = labelValue(value);
    return [
      ...(wrongKey === undefined ? [] : [invalidValue(field, key, wrongKey)]),
      ...(wrongValue === undefined ? [] : [invalidValue(field, value, wrongValue)]),
    ];
  });
}

/** @param keyOf What must not come twice; undefined is never a duplicate. */
export function checkUnique<T>(
  field: string,
  list: readonly T[] | undefined,
  keyOf: (item: T) => string | number | undefined,
  suffix = '',
): FieldIssue[] {
  const seen = new Set<string | number>();
  return (list ?? []).flatMap((item, i) => {
    const key = keyOf(item);
    if (key === undefined || !seen.has(key)) {
      if (key !== undefined) seen.add(key);
      return [];
    }
    return [duplicateValue(`${field}[${i}]${suffix}`, key)];
  });
}
