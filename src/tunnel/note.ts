import { z } from 'zod';
import type { PodRef } from '../model/endpoint.ts';
import { formatSpiffeId, parseSpiffeId, type SpiffeId } from '../model/identity.ts';
import type { BreachRadius } from './handshake/exchange.ts';

/**
 * What an agent writes beside every SA that it installs, so that its successor knows what the SA is: the driver keeps
 * SAs, and gives the notes back, across an agent's restart. Nothing in it is secret.
 */
export interface SaNote {
  readonly localUid: string;
  readonly remote: PodRef;
  readonly remoteSpiffeId: SpiffeId;
  /** Of the certificate that the peer proved itself with: canonical hexadecimal. */
  readonly remoteSerial: string;
  readonly node: string;
  /** Both halves name each other. */
  readonly spiIn: number;
  readonly spiOut: number;
  /** Unix milliseconds. */
  readonly establishedAt: number;
  readonly rekeyAt: number;
  readonly expiresAt: number;
  readonly cipher: string;
  readonly group: string | undefined;
  readonly radius: BreachRadius;
  /** Of the certificate of the peer's node, where the radius is `node`. */
  readonly nodeSerial: string | undefined;
}

/** What the driver takes (driver.ts). */
export const longestNote = 1024;

const schema = z.strictObject({
  v: z.literal(1),
  l: z.string(),
  r: z.string(),
  /** Namespace and service account; the trust domain is this node's own, for there is no tunnel to another. */
  i: z.tuple([z.string(), z.string()]),
  s: z.string(),
  p: z.tuple([z.int(), z.int()]),
  t: z.tuple([z.int(), z.int(), z.int()]),
  c: z.string(),
  g: z.string().optional(),
  /** Present where the breach radius is `node`: the serial number of the peer's node's certificate. */
  d: z.string().optional(),
  /** Only for people, and left out where there is no room. */
  n: z.string().optional(),
  a: z.string().optional(),
});

/**
 * @param whose What the peer's SPIFFE ID says.
 * @returns At most 1 KiB of ASCII: names at their longest push out what only people read.
 */
export function encodeNote(
  note: SaNote,
  whose: { readonly namespace: string; readonly serviceAccount: string } = parseSpiffeId(note.remoteSpiffeId),
): string {
  const whole: z.infer<typeof schema> = {
    v: 1,
    l: note.localUid,
    r: note.remote.uid,
    i: [whose.namespace, whose.serviceAccount],
    s: note.remoteSerial,
    p: [note.spiIn, note.spiOut],
    t: [Math.round(note.establishedAt), Math.round(note.rekeyAt), Math.round(note.expiresAt)],
    c: note.cipher,
    g: note.group,
    d: note.radius === 'node' ? (note.nodeSerial ?? '') : undefined,
    n: note.remote.name,
    a: note.node,
  };
  const text = JSON.stringify(whole);
  if (text.length <= longestNote) return text;
  for (const shorter of [
    { ...whole, n: undefined },
    { ...whole, n: undefined, a: undefined },
  ]) {
    const rest = JSON.stringify(shorter);
    if (rest.length <= longestNote) return rest;
  }
  return '';
}

/** @returns Undefined for what this version did not write. */
export function decodeNote(text: string, trustDomain: string): SaNote | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = schema.safeParse(json);
  if (!parsed.success) return undefined;
  const { l, r, i, s, p, t, c, g, d, n, a } = parsed.data;
  const [namespace, serviceAccount] = i;
  return {
    localUid: l,
    remote: { namespace, name: n ?? r, uid: r },
    remoteSpiffeId: formatSpiffeId({ trustDomain, namespace, serviceAccount }),
    remoteSerial: s,
    node: a ?? '',
    spiIn: p[0],
    spiOut: p[1],
    establishedAt: t[0],
    rekeyAt: t[1],
    expiresAt: t[2],
    cipher: c,
    group: g,
    radius: d === undefined ? 'pod' : 'node',
    nodeSerial: d,
  };
}
