import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { BpfMap } from '../../kernel/bpf/map.ts';
import { waitForPackets } from '../../kernel/rcu.ts';
import { capacityFor, fullShare, growingNames, type Need, type Room } from './capacity.ts';

/** What growth needs of a typed map (src/datapath/typed-map.ts), whatever is in it. */
export interface GrowingTable {
  readonly name: string;
  readonly capacity: number;
  follow(next: BpfMap): void;
  unfollow(): void;
  copy(): Promise<void>;
  promote(): BpfMap;
}

/** The program set once more, over larger maps in the place of some. */
export interface NextGeneration {
  /** The larger maps, by name. */
  readonly maps: ReadonlyMap<string, BpfMap>;
  /**
   * Puts the new programs in the place of those before, everywhere. May be called again where it has thrown.
   * @param onEach Called after each place.
   */
  replace(onEach: () => void): void;
  /** Gives up the programs before, which nothing uses any more. */
  retire(): void;
  /** Gives up this generation, which nothing uses yet. */
  abandon(): void;
}

/**
 * How far a growth has come, after each step that a process may die at: larger maps and new programs are there, all
 * entries are copied, one place has the new program, all have it, one larger map has a second pin, it has taken the pin of
 * the map before, and all is done.
 */
export type GrowthStep = 'made' | 'copied' | 'replacing' | 'replaced' | 'second-pin' | 'pinned' | 'done';

export interface GrowthDeps {
  /** By name; of the maps that may grow. */
  readonly tables: ReadonlyMap<string, GrowingTable>;
  /** How many entries each may come to have. */
  readonly most: ReadonlyMap<string, number>;
  readonly pinDir?: string;
  /** Makes maps of these capacities, and loads all programs over them and the maps there are. */
  readonly load: (capacities: Readonly<Record<string, number>>) => Promise<NextGeneration>;
  readonly onStep?: (step: GrowthStep) => void;
  readonly log?: Pick<Logger, 'warn' | 'info'>;
}

/** After a failure growth waits for so long, unless something does not fit without it. */
const restMs = 60_000;

/**
 * Makes maps larger while programs use them, without a further look-up on a packet's way: programs cannot be given another
 * map, so all of them are loaded once more. From the moment when a larger map is there, until no program looks at the one
 * before and its pin is the larger one's, every write goes to both: so each place can change over by itself, in any order,
 * and whoever comes after a process that died in between may go on with either.
 */
export class MapGrowth implements Room {
  readonly #deps: GrowthDeps;
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;
  /** Copied whole, but not in force everywhere yet, since something failed. */
  #unfinished: NextGeneration | undefined;
  #problem: string | undefined;
  #restUntil = 0;

  constructor(deps: GrowthDeps) {
    this.#deps = deps;
  }

  /** Why the last growth failed; undefined where it did not. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Resolves when no growth is under way. */
  get settled(): Promise<void> {
    return this.#last;
  }

  most(map: string): number | undefined {
    return this.#deps.most.get(map);
  }

  async make(needs: readonly Need[]): Promise<void> {
    if (needs.some((need) => need.entries > this.#capacity(need))) await this.#enqueue(needs);
  }

  /** Grows in the background where maps are so full that there soon will be need. */
  consider(needs: readonly Need[]): void {
    if (this.#waiting > 0 || Date.now() < this.#restUntil) return;
    if (this.#unfinished !== undefined || Object.keys(this.#wanted(needs)).length > 0) void this.#enqueue(needs);
  }

  #capacity({ map, entries }: Need): number {
    return this.#deps.tables.get(map)?.capacity ?? entries;
  }

  /** New capacities, of those maps that are to grow; none where one of the needs cannot be met. */
  #wanted(needs: readonly Need[]): Record<string, number> {
    const wanted: Record<string, number> = {};
    for (const need of needs) {
      const capacity = this.#capacity(need);
      const next = capacityFor(need.entries, capacity, this.most(need.map) ?? capacity);
      if (next === undefined) return {};
      if (next > capacity && need.entries > fullShare * capacity)
        wanted[need.map] = Math.max(next, wanted[need.map] ?? 0);
    }
    return wanted;
  }

  #enqueue(needs: readonly Need[]): Promise<void> {
    this.#waiting++;
    this.#last = this.#last.then(async () => {
      try {
        await this.#grow(needs);
        this.#problem = undefined;
      } catch (error) {
        this.#problem = error instanceof Error ? error.message : String(error);
        this.#restUntil = Date.now() + restMs;
        this.#deps.log?.warn({ err: error }, 'maps could not be made larger');
      } finally {
        this.#waiting--;
      }
    });
    return this.#last;
  }

  async #grow(needs: readonly Need[]): Promise<void> {
    if (this.#unfinished !== undefined) await this.#putInForce(this.#unfinished);
    const capacities = this.#wanted(needs);
    if (Object.keys(capacities).length === 0) return;
    const begun = performance.now();
    const next = await this.#deps.load(capacities);
    this.#step('made');
    const tables = [...next.maps].flatMap(([name, map]) => {
      const table = this.#deps.tables.get(name);
      return table === undefined ? [] : [{ table, map }];
    });
    try {
      for (const { table, map } of tables) table.follow(map);
      for (const { table } of tables) await table.copy();
    } catch (error) {
      for (const { table } of tables) table.unfollow();
      next.abandon();
      throw error;
    }
    this.#step('copied');
    this.#unfinished = next;
    await this.#putInForce(next);
    this.#deps.log?.info({ capacities, ms: Math.round(performance.now() - begun) }, 'maps were made larger');
  }

  /** Nothing else runs between the first place and the last. @throws {KernelError} `Errno`: to be called again */
  async #putInForce(next: NextGeneration): Promise<void> {
    const { pinDir, tables } = this.#deps;
    next.replace(() => this.#step('replacing'));
    // A packet may be inside an old program still, and would meet a new revision in those maps only that have not grown.
    await waitForPackets();
    this.#step('replaced');
    for (const [name, map] of next.maps) {
      if (pinDir === undefined) continue;
      const second = secondPin(pinDir, name);
      rmSync(second, { force: true });
      map.pin(second);
      this.#step('second-pin');
      renameSync(second, join(pinDir, name));
      this.#step('pinned');
    }
    for (const name of next.maps.keys()) tables.get(name)?.promote().close();
    this.#unfinished = undefined;
    next.retire();
    this.#step('done');
  }

  #step(step: GrowthStep): void {
    this.#deps.onStep?.(step);
  }
}

/** What a larger map is pinned as until it takes the pin of the one before. The kernel allows no dots in names of pins. */
function secondPin(pinDir: string, name: string): string {
  return join(pinDir, `${name}_next`);
}

/** Removes what a process left that died while maps grew. */
export function removeSecondPins(pinDir: string): void {
  for (const name of growingNames) rmSync(secondPin(pinDir, name), { force: true });
}
