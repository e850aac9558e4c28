import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { BpfMap } from '../kernel/bpf/map.ts';
import { BpfObject } from '../kernel/bpf/object.ts';
import type { BpfProgram } from '../kernel/bpf/program.ts';
import { ensurePinDirectory } from '../kernel/bpffs.ts';
import { KernelError } from '../kernel/error.ts';
import { DatapathError } from './error.ts';
import { growingNames } from './growth/capacity.ts';
import { removeSecondPins } from './growth/growth.ts';
import { Loading } from './growth/loading.ts';
import * as layouts from './layouts.ts';
import { TypedMap } from './typed-map.ts';

/** One object file per place where programs are attached; all of them define all maps. */
export const objectFiles = ['from_pod', 'to_pod', 'from_tunnel', 'from_proxy', 'underlay'] as const;

const programFiles = {
  from_pod: 'from_pod',
  to_pod: 'to_pod',
  from_tunnel: 'from_tunnel',
  from_tunnel_ethernet: 'from_tunnel',
  from_holder: 'from_tunnel',
  from_proxy: 'from_proxy',
  from_underlay: 'underlay',
  to_underlay: 'underlay',
} as const satisfies Record<string, (typeof objectFiles)[number]>;
export type ProgramName = keyof typeof programFiles;

/** Every map, typed. bpf/lib/maps.h says what each is for. */
export interface DatapathMaps {
  readonly config: TypedMap<number, layouts.Config>;
  readonly endpoints: TypedMap<number, layouts.Endpoint>;
  /** By the endpoint's id. */
  readonly audits: TypedMap<number, layouts.EndpointAudit>;
  readonly local: TypedMap<layouts.Address, number>;
  readonly peers: TypedMap<layouts.Address, layouts.Peer>;
  readonly prefixes: TypedMap<layouts.PrefixKey, layouts.Peer>;
  readonly ruleSets: TypedMap<number, layouts.RuleSetValue>;
  readonly policy: TypedMap<layouts.PolicyKey, layouts.PolicyValue>;
  readonly httpCells: TypedMap<number, layouts.HttpBits>;
  readonly httpMatchers: TypedMap<number, layouts.HttpMatcher>;
  readonly httpAlternatives: TypedMap<number, layouts.HttpAlternative>;
  readonly httpRows: TypedMap<number, layouts.HttpRow>;
  readonly httpAccepts: TypedMap<number, layouts.HttpBits>;
  readonly connections: TypedMap<layouts.CtKey, layouts.CtEntry>;
  readonly identityClasses: TypedMap<number, number>;
  readonly proxyPorts: TypedMap<layouts.ProxyPortKey, number>;
  /** When the proxy was wanted for a client last, in nanoseconds since boot. */
  readonly proxyClients: TypedMap<layouts.ProxyClientKey, bigint>;
  readonly services: TypedMap<layouts.ServiceKey, layouts.ServiceValue>;
  readonly backends: TypedMap<layouts.BackendKey, layouts.ServiceEnd>;
  readonly serviceFronts: TypedMap<number, layouts.ServiceEnd>;
  readonly serviceFlows: TypedMap<layouts.CtKey, layouts.ServiceFlow>;
  readonly tunnels: TypedMap<layouts.TunnelKey, layouts.Tunnel>;
  readonly tunnelPaths: TypedMap<layouts.TunnelKey, number>;
  readonly nameMatchers: TypedMap<number, layouts.NameMatcherValue>;
  readonly nameStates: TypedMap<layouts.NameStateKey, layouts.NameState>;
  readonly nameAccepts: TypedMap<layouts.NameAcceptKey, layouts.NameAccept>;
  readonly namePatterns: TypedMap<number, layouts.NamePattern>;
  readonly names: TypedMap<layouts.NameKey, layouts.NameValue>;
  /** By rule. */
  readonly logLimits: TypedMap<number, layouts.LogLimit>;
  readonly metrics: TypedMap<number, layouts.Metric>;
  readonly eventLosses: TypedMap<number, bigint>;
  /** The ring buffer. */
  readonly events: BpfMap;
}

export interface ObjectOptions {
  /** Where the compiled object files are: build/bpf. */
  readonly objectDir: string;
  /** A directory on a BPF file system, made if it is missing; without, the maps end with this process (tests). */
  readonly pinDir?: string;
  /** Capacities by map name; of maps that grow, where there is no pin yet. */
  readonly maxEntries?: Readonly<Record<string, number>>;
  /** How many entries maps may come to have, by name; by default what src/datapath/growth/capacity.ts says. */
  readonly mostEntries?: Readonly<Record<string, number>>;
  /**
   * What to do where the pinned maps are another version's. `refuse` (default) throws `IncompatibleState`. `recreate`
   * starts with empty maps; the programs that are attached go on with the old ones until they are replaced.
   */
  readonly onIncompatible?: 'refuse' | 'recreate';
}

type Programs = Readonly<Record<ProgramName, BpfProgram>>;
type Specs = ReadonlyMap<string, BpfObject>;

/** All programs over the same maps. */
export interface ProgramSet {
  readonly programs: Programs;
  /** Maps that were made for it; whoever puts it in force closes those before. */
  readonly made: ReadonlyMap<string, BpfMap>;
  /** Gives up the programs, which go on where they are attached. */
  close(): void;
}

/** The maps and the programs of this process. */
export class DatapathObjects {
  readonly maps: DatapathMaps;
  /** The maps are new although programs may be attached that use older ones. */
  readonly recreated: boolean;
  readonly #specs: Specs;
  readonly #maxEntries: ObjectOptions['maxEntries'];
  readonly #handles: Map<string, BpfMap>;
  #set: ProgramSet;

  constructor(specs: Specs, set: ProgramSet, { maxEntries }: ObjectOptions, recreated: boolean) {
    this.#specs = specs;
    this.#maxEntries = maxEntries;
    this.#set = set;
    this.#handles = new Map(set.made);
    this.maps = typedMaps(this.#handles);
    this.recreated = recreated;
  }

  /** Those that are to be attached. */
  get programs(): Programs {
    return this.#set.programs;
  }

  /** Every map by its name, for objects that are loaded beside these. */
  get shared(): ReadonlyMap<string, BpfMap> {
    return this.#handles;
  }

  /** @returns The capacity that a map has as it is made. */
  declared(name: string): number | undefined {
    const [spec] = this.#specs.values();
    return this.#maxEntries?.[name] ?? spec?.maps.get(name)?.maxEntries;
  }

  /**
   * Loads all programs once more, without holding up the event loop.
   * @param capacities By name: of these maps new ones are made, empty and pinned nowhere.
   * @throws {KernelError} `Verifier`, `Errno`
   */
  async reload(capacities: Readonly<Record<string, number>>): Promise<ProgramSet> {
    const others = [...this.#handles].filter(([name]) => capacities[name] === undefined);
    return await loadBeside(this.#specs, new Map(others), capacities);
  }

  /** Makes the programs of a set those that are attached from now on. @returns Those before. */
  exchange(set: ProgramSet): ProgramSet {
    const before = this.#set;
    this.#set = set;
    for (const [name, map] of set.made) this.#handles.set(name, map);
    return before;
  }

  /** Gives up the handles; what is pinned or attached goes on. */
  close(): void {
    this.#set.close();
    for (const map of this.#handles.values()) map.close();
  }
}

/**
 * Loads the four objects; their maps are shared and, by their pins, those of the process before this one.
 * @throws {DatapathError} `LayoutMismatch`, `IncompatibleState`
 * @throws {KernelError} `Verifier`, `Errno`
 */
export function loadObjects(options: ObjectOptions): DatapathObjects {
  const specs = new Map(objectFiles.map((file) => [file, BpfObject.open(join(options.objectDir, `${file}.bpf.o`))]));
  for (const spec of specs.values()) checkLayouts(spec);
  if (options.pinDir !== undefined) {
    ensurePinDirectory(options.pinDir);
    removeSecondPins(options.pinDir);
  }
  try {
    return new DatapathObjects(specs, loadAll(specs, options), options, false);
  } catch (error) {
    if (!(error instanceof KernelError) || error.code !== 'IncompatiblePin' || options.pinDir === undefined)
      throw error;
    if (options.onIncompatible !== 'recreate')
      throw new DatapathError('IncompatibleState', `${error.message}: start with a new pin directory or recreate it`, {
        cause: error,
        data: { ...error.data },
      });
    for (const spec of specs.values())
      for (const [name, { internal }] of spec.maps) if (!internal) rmSync(join(options.pinDir, name), { force: true });
    return new DatapathObjects(specs, loadAll(specs, options), options, true);
  }
}

function loadAll(specs: Specs, { pinDir, maxEntries }: ObjectOptions): ProgramSet {
  const loading = new Loading(new Map());
  try {
    for (const [file, spec] of specs)
      loading.take(
        file,
        spec.load({
          ...(pinDir === undefined ? { maps: loading.maps } : { pinDir, growing: growingNames }),
          ...(maxEntries === undefined ? {} : { maxEntries }),
        }),
      );
    return programSet(loading);
  } catch (error) {
    loading.close();
    throw error;
  }
}

async function loadBeside(
  specs: Specs,
  maps: ReadonlyMap<string, BpfMap>,
  maxEntries: Readonly<Record<string, number>>,
): Promise<ProgramSet> {
  const loading = new Loading(maps);
  try {
    for (const [file, spec] of specs) loading.take(file, await spec.loadBeside({ maps: loading.maps, maxEntries }));
    return programSet(loading);
  } catch (error) {
    loading.close();
    throw error;
  }
}

function programSet(loading: Loading): ProgramSet {
  const program = (name: ProgramName): BpfProgram => {
    const object = loading.objects.get(programFiles[name]);
    if (object === undefined) throw new TypeError(`object ${programFiles[name]} is not loaded`);
    return object.program(name);
  };
  const programs = {
    from_pod: program('from_pod'),
    to_pod: program('to_pod'),
    from_tunnel: program('from_tunnel'),
    from_tunnel_ethernet: program('from_tunnel_ethernet'),
    from_holder: program('from_holder'),
    from_proxy: program('from_proxy'),
    from_underlay: program('from_underlay'),
    to_underlay: program('to_underlay'),
  };
  return { programs, made: loading.made, close: () => loading.closeObjects() };
}

/** The maps that rules are in, also of an object that is loaded by itself. */
export function ruleMaps(map: (name: string) => BpfMap) {
  return {
    ruleSets: new TypedMap(map('rule_sets'), layouts.number32, layouts.ruleSet),
    policy: new TypedMap(map('policy'), layouts.policyKey, layouts.policyEntry),
    httpCells: new TypedMap(map('http_cells'), layouts.number32, layouts.httpBits),
    httpMatchers: new TypedMap(map('http_matchers'), layouts.number32, layouts.httpMatcher),
    httpAlternatives: new TypedMap(map('http_alternatives'), layouts.number32, layouts.httpAlternative),
    httpRows: new TypedMap(map('http_rows'), layouts.number32, layouts.httpRow),
    httpAccepts: new TypedMap(map('http_accepts'), layouts.number32, layouts.httpBits),
  } satisfies Partial<DatapathMaps>;
}

function typedMaps(maps: ReadonlyMap<string, BpfMap>): DatapathMaps {
  const map = (name: string): BpfMap => {
    const found = maps.get(name);
    if (found !== undefined) return found;
    throw new DatapathError('LayoutMismatch', `the BPF objects have no map ${name}`, { data: { map: name } });
  };
  return {
    config: new TypedMap(map('config'), layouts.number32, layouts.config),
    endpoints: new TypedMap(map('endpoints'), layouts.number32, layouts.endpoint),
    audits: new TypedMap(map('audits'), layouts.number32, layouts.endpointAudit),
    local: new TypedMap(map('local'), layouts.address, layouts.number32),
    peers: new TypedMap(map('peers'), layouts.address, layouts.peer),
    prefixes: new TypedMap(map('prefixes'), layouts.prefixKey, layouts.peer),
    ...ruleMaps(map),
    connections: new TypedMap(map('ct'), layouts.ctKey, layouts.ctEntry),
    identityClasses: new TypedMap(map('identity_classes'), layouts.number32, layouts.number32),
    proxyPorts: new TypedMap(map('proxy_ports'), layouts.proxyPortKey, layouts.number32),
    proxyClients: new TypedMap(map('proxy_clients'), layouts.proxyClientKey, layouts.number64),
    services: new TypedMap(map('services'), layouts.serviceKey, layouts.service),
    backends: new TypedMap(map('backends'), layouts.backendKey, layouts.serviceEnd),
    serviceFronts: new TypedMap(map('service_fronts'), layouts.number32, layouts.serviceEnd),
    serviceFlows: new TypedMap(map('service_flows'), layouts.ctKey, layouts.serviceFlow),
    tunnels: new TypedMap(map('tunnel_in'), layouts.tunnelKey, layouts.tunnel),
    tunnelPaths: new TypedMap(map('tunnel_out'), layouts.tunnelKey, layouts.number32),
    nameMatchers: new TypedMap(map('name_matchers'), layouts.number32, layouts.nameMatcher),
    nameStates: new TypedMap(map('name_states'), layouts.nameStateKey, layouts.nameState),
    nameAccepts: new TypedMap(map('name_accepts'), layouts.nameAcceptKey, layouts.nameAccept),
    namePatterns: new TypedMap(map('name_patterns'), layouts.number32, layouts.namePattern),
    names: new TypedMap(map('names'), layouts.nameKey, layouts.nameValue),
    logLimits: new TypedMap(map('log_limits'), layouts.number32, layouts.logLimit),
    metrics: new TypedMap(map('metrics'), layouts.number32, layouts.metric),
    eventLosses: new TypedMap(map('event_losses'), layouts.number32, layouts.number64),
    events: map('events'),
  };
}

/**
 * Compares this program's layouts with what an object was compiled from.
 * @throws {DatapathError} `LayoutMismatch` with every difference
 */
function checkLayouts(spec: BpfObject): void {
  // What no type of this one object mentions is in another's.
  const differences = layouts.structs.flatMap((layout) => {
    const actual = spec.btf.struct(layout.name);
    return actual === undefined ? [] : layout.differences(actual);
  });
  if (differences.length === 0) return;
  throw new DatapathError(
    'LayoutMismatch',
    `${spec.path} was compiled from other layouts (build it anew: make): ${differences[0]}`,
    { data: { differences } },
  );
}
