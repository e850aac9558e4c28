import { isDeepStrictEqual } from 'node:util';
import { canonicalSerial } from './certificate.ts';
import { IdentityError } from './error.ts';
import type { RevocationsDocument } from './revocation.ts';

/**
 * How a root key is replaced without a moment in which somebody's certificate is not believed:
 *
 *   prepare   a new root is made and published; it signs nothing yet
 *   activate  once every node can have the new bundle, the new root signs; the old one's key is destroyed
 *   retire    once everything that the old root signed has expired, it leaves the bundle
 *
 * Pure: states and times in, states out.
 */
export interface RootState {
  readonly id: string;
  readonly status: 'next' | 'signing' | 'previous';
  /** PEM. */
  readonly certificate: string;
  /** Unix milliseconds. */
  readonly publishedAt: number;
  /** Nothing that this root signed lives longer. Unix milliseconds; 0 while it signed nothing. */
  readonly issuedUntil: number;
}

export interface CaState {
  readonly trustDomain: string;
  /** The bundle's sequence: grows whenever the roots or the revocations change. */
  readonly sequence: number;
  readonly roots: readonly RootState[];
  /** What administrators told the CA itself; there is no way back. */
  readonly revocations: RevocationsDocument;
  /** What the API's Revocation objects say; as long as they are there. Kept, so that a start without the API forgets none. */
  readonly declared: RevocationsDocument;
}

/** @throws {IdentityError} `CaState` while another rotation is under way. */
export function prepareRoot(state: CaState, root: { id: string; certificate: string }, now: number): CaState {
  const pending = state.roots.find((other) => other.status !== 'signing');
  if (pending !== undefined)
    throw new IdentityError('CaState', `root ${pending.id} is still ${pending.status}: finish that rotation first`);
  const { id, certificate } = root;
  const next: RootState = { id, certificate, status: 'next', publishedAt: now, issuedUntil: 0 };
  return { ...state, sequence: state.sequence + 1, roots: [...state.roots, next] };
}

/**
 * @param overlapMs How long the new root must have been published: at least as long as a node may go without asking.
 * @throws {IdentityError} `CaState` when there is nothing prepared, or it was published too recently.
 */
export function activateRoot(state: CaState, now: number, overlapMs: number): CaState {
  const next = state.roots.find((root) => root.status === 'next');
  if (next === undefined) throw new IdentityError('CaState', 'no root is prepared: prepare one first');
  const ready = next.publishedAt + overlapMs;
  if (now < ready)
    throw new IdentityError('CaState', `root ${next.id} may sign from ${new Date(ready).toISOString()}`, {
      data: { notBefore: ready },
    });
  const status = (root: RootState): RootState['status'] => (root.id === next.id ? 'signing' : 'previous');
  return { ...state, roots: state.roots.map((root) => ({ ...root, status: status(root) })) };
}

/** @throws {IdentityError} `CaState` when there is nothing to retire, or something that it signed may still be in use. */
export function retireRoot(state: CaState, now: number): CaState {
  const previous = state.roots.find((root) => root.status === 'previous');
  if (previous === undefined) throw new IdentityError('CaState', 'no root is replaced: activate a prepared one first');
  if (now <= previous.issuedUntil)
    throw new IdentityError(
      'CaState',
      `certificates of root ${previous.id} are valid until ${new Date(previous.issuedUntil).toISOString()}`,
      { data: { notBefore: previous.issuedUntil } },
    );
  return { ...state, sequence: state.sequence + 1, roots: state.roots.filter((root) => root !== previous) };
}

/** The horizon moves in whole hours, so that it is written to disk seldom. */
const horizonStep = 3_600_000;

/** Notes that the signing root has signed something that lives until `notAfter`; the same state when that was covered already. */
export function noteIssued(state: CaState, notAfter: number): CaState {
  const signing = signingRoot(state);
  if (notAfter <= signing.issuedUntil) return state;
  const issuedUntil = Math.ceil(notAfter / horizonStep + 1) * horizonStep;
  return { ...state, roots: state.roots.map((root) => (root === signing ? { ...root, issuedUntil } : root)) };
}

/** @throws {IdentityError} `CaState` where the state has no signing root, which no transition leads to. */
export function signingRoot(state: CaState): RootState {
  const root = state.roots.find((candidate) => candidate.status === 'signing');
  if (root === undefined) throw new IdentityError('CaState', 'the CA has no signing root');
  return root;
}

/** Everything that is revoked, whoever said so. */
export function allRevoked({ revocations, declared }: Pick<CaState, 'revocations' | 'declared'>): RevocationsDocument {
  const { serials, podUids, spiffeIds } = revocations;
  return {
    serials: [...new Set([...serials, ...declared.serials])],
    podUids: [...new Set([...podUids, ...declared.podUids])],
    spiffeIds: [...new Set([...spiffeIds, ...declared.spiffeIds])],
  };
}

/** @returns The state with exactly these declared; the same state where they were already. */
export function declareRevocations(state: CaState, declared: RevocationsDocument): CaState {
  const sorted = (list: readonly string[]) => [...new Set(list)].sort();
  const next = {
    serials: sorted(declared.serials.map(canonicalSerial)),
    podUids: sorted(declared.podUids),
    spiffeIds: sorted(declared.spiffeIds),
  };
  if (isDeepStrictEqual(next, state.declared)) return state;
  return { ...state, sequence: state.sequence + 1, declared: next };
}

/** @returns The state with these revoked too; the same state where all of them were already. */
export function addRevocations(state: CaState, revoked: Partial<RevocationsDocument>): CaState {
  const union = (old: readonly string[], more: readonly string[] = []) => [...new Set([...old, ...more])];
  const { serials, podUids, spiffeIds } = state.revocations;
  const revocations = {
    serials: union(serials, revoked.serials?.map(canonicalSerial)),
    podUids: union(podUids, revoked.podUids),
    spiffeIds: union(spiffeIds, revoked.spiffeIds),
  };
  const size = (of: RevocationsDocument) => of.serials.length + of.podUids.length + of.spiffeIds.length;
  if (size(revocations) === size(state.revocations)) return state;
  return { ...state, sequence: state.sequence + 1, revocations };
}
