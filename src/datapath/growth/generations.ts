import type { HttpReader } from '../http/reader.ts';
import type { DatapathMaps, DatapathObjects, ObjectOptions, ProgramSet } from '../objects.ts';
import type { Attachments } from './attachments.ts';
import { type GrowingMap, grows, mostEntries } from './capacity.ts';
import { type GrowingTable, type GrowthDeps, MapGrowth, type NextGeneration } from './growth.ts';

export interface GenerationDeps extends Pick<GrowthDeps, 'log' | 'onStep'> {
  readonly objects: DatapathObjects;
  readonly attachments: Attachments;
  /** Absent where no requests can be read. */
  readonly http: HttpReader | undefined;
}

/** @returns What makes the maps larger under the programs that are loaded. */
export function openGrowth(options: ObjectOptions, { objects, attachments, http, ...rest }: GenerationDeps): MapGrowth {
  const tables = new Map<string, GrowingTable>();
  const most = new Map<string, number>();
  for (const table of Object.values(growingTables(objects.maps))) {
    tables.set(table.name, table);
    if (grows(table.name))
      most.set(table.name, options.mostEntries?.[table.name] ?? mostEntries(table.name, table.raw.info));
  }
  return new MapGrowth({
    tables,
    most,
    load: (capacities) => nextGeneration(objects, attachments, http, capacities),
    ...(options.pinDir === undefined ? {} : { pinDir: options.pinDir }),
    ...rest,
  });
}

/** Every program once more: those at devices, and those that read requests. */
async function nextGeneration(
  objects: DatapathObjects,
  attachments: Attachments,
  http: HttpReader | undefined,
  capacities: Readonly<Record<string, number>>,
): Promise<NextGeneration> {
  const set = await objects.reload(capacities);
  const abandon = () => {
    set.close();
    for (const map of set.made.values()) map.close();
  };
  const reader = await http?.reload(new Map([...objects.shared, ...set.made])).catch((error: unknown) => {
    abandon();
    throw error;
  });
  let before: ProgramSet | undefined;
  return {
    maps: set.made,
    replace: (onEach) => {
      // What is attached from here on is new already.
      before ??= objects.exchange(set);
      attachments.replace(onEach);
      if (reader !== undefined) http?.replace(reader);
      onEach();
    },
    retire: () => {
      before?.close();
      http?.retire();
    },
    abandon: () => {
      reader?.close();
      abandon();
    },
  };
}

function growingTables(
  maps: DatapathMaps,
): Readonly<Record<GrowingMap, GrowingTable & Pick<DatapathMaps['policy'], 'raw'>>> {
  return {
    policy: maps.policy,
    rule_sets: maps.ruleSets,
    identity_classes: maps.identityClasses,
    peers: maps.peers,
    prefixes: maps.prefixes,
    services: maps.services,
    service_fronts: maps.serviceFronts,
    backends: maps.backends,
    tunnel_in: maps.tunnels,
    tunnel_out: maps.tunnelPaths,
    name_matchers: maps.nameMatchers,
    name_states: maps.nameStates,
    name_accepts: maps.nameAccepts,
    name_patterns: maps.namePatterns,
    http_cells: maps.httpCells,
    http_matchers: maps.httpMatchers,
    http_alternatives: maps.httpAlternatives,
    http_rows: maps.httpRows,
    http_accepts: maps.httpAccepts,
  };
}
