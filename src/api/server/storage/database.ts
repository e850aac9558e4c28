import { closeSync, openSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { MyelinError } from '../../../model/error.ts';
import { type AnyObject, isKubeObject } from '../../json.ts';

export type EventType = 'ADDED' | 'MODIFIED' | 'DELETED';

/** One change, as it is written and as it is read back after a restart. JSON texts are whole objects. */
export interface ChangeRecord {
  /** The resourceVersion that the change made: one counter for the whole store. */
  readonly revision: number;
  readonly type: EventType;
  /** `group/plural`. */
  readonly resource: string;
  /** `namespace/name` or `name`. */
  readonly key: string;
  /** The new state; of a deletion, the last. */
  readonly json: string;
  /** The state before; what a watcher with a selector needs to tell a change from a departure. */
  readonly previousJson: string | undefined;
}

export interface ObjectRecord {
  readonly resource: string;
  readonly key: string;
  readonly json: string;
}

export type StorageErrorCode = 'StorageLocked' | 'StorageCorrupt';

const schema = `
  CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, key TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (resource, key)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS history (
    revision INTEGER PRIMARY KEY, type TEXT NOT NULL, resource TEXT NOT NULL, key TEXT NOT NULL,
    json TEXT NOT NULL, previous TEXT
  ) STRICT;
  CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 0), revision INTEGER NOT NULL) STRICT;
  INSERT OR IGNORE INTO counter VALUES (0, 0);
`;

/**
 * The store on disk: the objects as they are, and the last changes, so that watchers go on where they were after a restart.
 * A change that `write` has returned from is on disk (write-ahead log, synchronised at every commit).
 */
export class Database {
  readonly #db: DatabaseSync;
  readonly #put: StatementSync;
  readonly #remove: StatementSync;
  readonly #record: StatementSync;
  readonly #count: StatementSync;
  readonly #trim: StatementSync;

  /**
   * @param file A path, or `:memory:`.
   * @param fsync Whether a change outlives a crash of the machine, and not of this process only.
   * @throws {MyelinError} `StorageLocked` where another server has the file.
   */
  constructor(file: string, fsync = true) {
    // Secrets are in it: nobody else's to read, from the first moment.
    if (file !== ':memory:') closeSync(openSync(file, 'a', 0o600));
    this.#db = new DatabaseSync(file);
    try {
      const synchronous = fsync ? 'FULL' : 'OFF';
      this.#db.exec(`PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = ${synchronous};`);
      this.#db.exec(`BEGIN EXCLUSIVE; ${schema} COMMIT;`);
    } catch (cause) {
      this.#db.close();
      const locked = cause instanceof Error && /locked|busy/.test(cause.message);
      throw new MyelinError<StorageErrorCode>(
        locked ? 'StorageLocked' : 'StorageCorrupt',
        locked
          ? `${file} is in use by another API server; stop that one or give another --data file`
          : `${file} cannot be opened as an API server's database: ${String(cause)}`,
        { cause, data: { file } },
      );
    }
    this.#put = this.#db.prepare('INSERT OR REPLACE INTO objects VALUES (?, ?, ?)');
    this.#remove = this.#db.prepare('DELETE FROM objects WHERE resource = ? AND key = ?');
    this.#record = this.#db.prepare('INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)');
    this.#count = this.#db.prepare('UPDATE counter SET revision = ?');
    this.#trim = this.#db.prepare('DELETE FROM history WHERE revision < ?');
  }

  /** The resourceVersion of the last change, 0 for an empty store. */
  revision(): number {
    return Number(this.#db.prepare('SELECT revision FROM counter').get()?.revision ?? 0);
  }

  *objects(): Generator<ObjectRecord> {
    for (const row of this.#db.prepare('SELECT resource, key, json FROM objects').iterate())
      yield { resource: String(row.resource), key: String(row.key), json: String(row.json) };
  }

  /** The kept changes, oldest first. */
  *history(): Generator<ChangeRecord> {
    const rows = this.#db.prepare('SELECT * FROM history ORDER BY revision').iterate();
    for (const row of rows)
      yield {
        revision: Number(row.revision),
        type: row.type === 'ADDED' ? 'ADDED' : row.type === 'DELETED' ? 'DELETED' : 'MODIFIED',
        resource: String(row.resource),
        key: String(row.key),
        json: String(row.json),
        previousJson: row.previous === null ? undefined : String(row.previous),
      };
  }

  /** Makes one change durable, all of it or nothing. */
  write(change: ChangeRecord): void {
    const { revision, type, resource, key, json, previousJson } = change;
    this.#db.exec('BEGIN');
    try {
      if (type === 'DELETED') this.#remove.run(resource, key);
      else this.#put.run(resource, key, json);
      this.#record.run(revision, type, resource, key, json, previousJson ?? null);
      this.#count.run(revision);
      this.#db.exec('COMMIT');
    } catch (error) {
      this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Forgets the changes before `revision`. */
  trimHistory(revision: number): void {
    this.#trim.run(revision);
  }

  close(): void {
    this.#db.close();
  }
}

/** @throws {MyelinError} `StorageCorrupt` */
export function parseStored(json: string): AnyObject {
  const value: unknown = JSON.parse(json);
  if (!isKubeObject(value))
    throw new MyelinError<StorageErrorCode>(
      'StorageCorrupt',
      'the database holds a row that is not a Kubernetes object',
    );
  return value;
}
