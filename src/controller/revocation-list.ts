import type { Entry } from '../api/client/types.ts';
import { isObject, objectOr } from '../api/json.ts';
import type { revocationTargets } from '../api/kinds/myelin.ts';
import type { Revocation } from '../api/kinds.ts';
import { formatIssue } from '../api/validate.ts';
import { canonicalSerial } from '../identity/certificate.ts';
import { nodeSpiffeId, podSpiffeId } from '../identity/names.ts';
import type { RevocationsDocument } from '../identity/revocation.ts';
import { MyelinError } from '../model/error.ts';

/** What one Revocation object comes to. */
export interface ReadRevocation {
  readonly revoked: RevocationsDocument;
  /** In words; empty where nothing could be read. */
  readonly target: string;
  /** When it ends by itself, Unix milliseconds. */
  readonly expires: number | undefined;
  /** What of it is not understood. What is understood holds all the same, and without an end that can be read for ever. */
  readonly problems: readonly string[];
}

/**
 * Reads a Revocation as strictly as it can be said and as widely as it can be meant: of an object that a newer server let
 * in, everything that names somebody is revoked. Pure.
 */
export function readRevocation(entry: Entry<Revocation>, trustDomain: string): ReadRevocation {
  const spec = objectOr(objectOr(entry.raw).spec);
  const problems = entry.issues.filter(({ field }) => !field.startsWith('status')).map(formatIssue);
  const targets: string[] = [];
  const serials: string[] = [];
  const podUids: string[] = [];
  const spiffeIds: string[] = [];
  const take = (name: (typeof revocationTargets)[number], read: (value: unknown) => void) => {
    if (spec[name] === undefined) return;
    try {
      read(spec[name]);
    } catch (error) {
      if (!(error instanceof MyelinError)) throw error;
      problems.push(`spec.${name}: ${error.message}`);
    }
  };
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  take('podUID', (value) => {
    podUids.push(text(value));
    targets.push(`pod ${text(value)}`);
  });
  take('serviceAccount', (value) => {
    const { namespace, name } = objectOr(value);
    spiffeIds.push(podSpiffeId({ trustDomain, namespace: text(namespace), serviceAccount: text(name) }));
    targets.push(`service account ${text(namespace)}/${text(name)}`);
  });
  take('node', (value) => {
    spiffeIds.push(nodeSpiffeId(trustDomain, text(value)));
    targets.push(`node ${text(value)}`);
  });
  take('serial', (value) => {
    const serial = canonicalSerial(text(value).replaceAll(':', ''));
    serials.push(serial);
    targets.push(`certificate ${serial}`);
  });
  const expires = typeof spec.expires === 'string' ? Date.parse(spec.expires) : Number.NaN;
  if (spec.expires !== undefined && Number.isNaN(expires)) problems.push('spec.expires: is no time: it never ends');
  return {
    revoked: { serials, podUids: podUids.filter((uid) => uid !== ''), spiffeIds },
    target: targets.join(' and '),
    expires: Number.isNaN(expires) ? undefined : expires,
    problems: [...new Set(problems)],
  };
}

/** What all of them together come to. @param now Unix milliseconds: what has expired is left out. */
export function uniteRevocations(read: Iterable<ReadRevocation>, now: number): RevocationsDocument {
  const standing = [...read].filter(({ expires }) => expires === undefined || now < expires);
  return {
    serials: standing.flatMap(({ revoked }) => revoked.serials),
    podUids: standing.flatMap(({ revoked }) => revoked.podUids),
    spiffeIds: standing.flatMap(({ revoked }) => revoked.spiffeIds),
  };
}

/** The part of an object's status that is a list of conditions, however little of the object is understood. */
export function conditionList(raw: unknown): { type: string; status: string; reason: string; message: string }[] {
  const { conditions } = objectOr(objectOr(raw).status);
  const word = (value: unknown) => (typeof value === 'string' ? value : '');
  return (Array.isArray(conditions) ? conditions : []).filter(isObject).map((each) => ({
    ...each,
    type: word(each.type),
    status: word(each.status),
    reason: word(each.reason),
    message: word(each.message),
  }));
}

export interface WantedCondition {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
}

/** What a Revocation's status should say. @param sequence Of the trust bundle that has it. */
export function revocationConditions(read: ReadRevocation, sequence: number, now: number): WantedCondition[] {
  const { target, expires, problems } = read;
  const condition = (type: string, yes: boolean, reason: string, message: string): WantedCondition => ({
    type,
    status: yes ? 'True' : 'False',
    reason,
    message,
  });
  const understood =
    problems.length === 0
      ? condition('Understood', true, 'Understood', 'every field is understood')
      : condition('Understood', false, 'NotUnderstood', problems.join('; '));
  if (target === '')
    return [condition('Effective', false, 'NotUnderstood', 'names nobody who could be revoked: nobody is'), understood];
  if (expires !== undefined && now >= expires)
    return [condition('Effective', false, 'Expired', `${target} is believed again since ${iso(expires)}`), understood];
  const until = expires === undefined ? 'until this object is deleted' : `until ${iso(expires)}`;
  const message = `${target} is not believed, ${until}; nodes are told with trust bundle ${sequence}`;
  return [condition('Effective', true, 'Published', message), understood];
}

function iso(time: number): string {
  return `${new Date(time).toISOString().slice(0, 19)}Z`;
}
