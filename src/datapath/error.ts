import { MyelinError } from '../model/error.ts';

export type DatapathErrorCode =
  /** A revision of the policy does not fit or could not be written; the one before it is in force, unchanged. */
  | 'RevisionRefused'
  /** The same for services. */
  | 'ServicesRefused'
  /** The object files were compiled from other layouts than this program knows. */
  | 'LayoutMismatch'
  /** The maps that are pinned were made by another version, and were not to be recreated. */
  | 'IncompatibleState'
  /** An image gives a number to something else than what the maps have under it. */
  | 'NumberReused';

/** What datapath/ throws on top of kernel/'s own errors. */
export class DatapathError extends MyelinError<DatapathErrorCode> {}

/** Why a revision was refused, and how much room it would have needed. */
export class RevisionRefused extends DatapathError {
  /** The map that it did not fit into. */
  readonly map: string;
  /** Entries the map would have had at its fullest: for a moment the old and the new revision are both there. */
  readonly needed: number;
  readonly capacity: number;

  constructor(
    code: 'RevisionRefused' | 'ServicesRefused',
    refused: { map: string; needed: number; capacity: number },
    cause?: unknown,
  ) {
    const { map, needed, capacity } = refused;
    const what = code === 'RevisionRefused' ? 'the new policy revision' : 'the new services';
    const why =
      needed > capacity
        ? `needs ${needed} entries in map ${map}, which has room for ${capacity}`
        : `could not be written to map ${map}`;
    super(code, `${what} ${why}; what was in force stays in force`, { cause, data: refused });
    this.map = map;
    this.needed = needed;
    this.capacity = capacity;
  }
}
