import { once } from 'node:events';
import { createServer } from 'node:https';
import type { Logger } from 'pino';
import { listenTcp } from '../../kernel/listen.ts';
import { type Prefix, parsePrefix } from '../../model/prefix.ts';
import { ContentsRemover } from './background/contents.ts';
import { ClusterDefaults } from './background/defaults.ts';
import { EventSweeper } from './background/events.ts';
import { GarbageCollector } from './background/garbage.ts';
import { Catalog } from './catalog.ts';
import { Dispatcher } from './http/dispatch.ts';
import { Objects } from './objects.ts';
import { ServiceAddresses } from './service-addresses.ts';
import { Store } from './storage/store.ts';
import { worldOf } from './world.ts';

/** PEM texts. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  /** What client certificates must come from. */
  readonly clientCa: string;
}

export interface ApiServerOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** The database file, or `:memory:`. */
  readonly file: string;
  /** Whether what was acknowledged outlives a crash of the machine. Default true; a crash of this process it does always. */
  readonly fsync?: boolean;
  readonly tls: ServerTls;
  /** One prefix, or one of each family; the first is the family of Services that name none. Default 10.96.0.0/16 and fd00:10:96::/112. */
  readonly serviceCidrs?: readonly Prefix[];
  /** How many changes watchers can go back. Default 10,000, within 64 MiB. */
  readonly historyEvents?: number;
  /** How often watchers are told where they are. Default once a minute. */
  readonly bookmarkMs?: number;
}

const defaultServiceCidrs = ['10.96.0.0/16', 'fd00:10:96::/112'].map(parsePrefix);
const drainMs = 2000;

/** The embedded API server: Kubernetes' REST contract over SQLite, for laptops, labs and single machines. */
export interface ApiServer {
  /** `https://host:port` */
  readonly url: string;
  readonly port: number;
  /** Takes new certificates for connections from now on. */
  reloadTls(tls: ServerTls): void;
  /** Ends watches and connections; what was acknowledged is on disk. */
  close(): Promise<void>;
}

/**
 * Starts the server.
 * @returns When it accepts connections.
 * @throws {ListenError}; {MyelinError} `StorageLocked`, `StorageCorrupt`
 */
export async function startApiServer(options: ApiServerOptions, deps: { logger: Logger }): Promise<ApiServer> {
  const { logger } = deps;
  const store = new Store({
    file: options.file,
    ...(options.fsync === undefined ? {} : { fsync: options.fsync }),
    historyEvents: options.historyEvents ?? 10_000,
    historyBytes: 64 * 1024 * 1024,
  });
  const world = worldOf(store, new ServiceAddresses(options.serviceCidrs ?? defaultServiceCidrs));
  const catalog = new Catalog(store);
  const objects: Objects = new Objects(store, world, (kind, { metadata }) => {
    if (kind.id === '/namespaces') defaults.ensureAccount(metadata.name ?? '');
  });
  const defaults = new ClusterDefaults({ store, catalog, objects });
  defaults.ensure();
  const background = [
    defaults,
    new GarbageCollector({ store, catalog, logger }),
    new ContentsRemover({ store, catalog, logger }),
    new EventSweeper(store),
  ];
  const stopping = new AbortController();
  const dispatcher = new Dispatcher({
    ...{ store, world, catalog, objects, logger },
    timing: { bookmarkMs: options.bookmarkMs ?? 60_000 },
    signal: stopping.signal,
  });
  const server = createServer(
    {
      ...tlsOptions(options.tls),
      requestCert: true,
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
      keepAliveTimeout: 120_000,
    },
    (request, response) => void dispatcher.handle(request, response),
  );
  const shut = () => {
    for (const part of background) part.close();
    store.close();
  };
  const port = await listenTcp(server, { ...options.listen, option: '--listen' }).catch((error: unknown) => {
    shut();
    throw error;
  });
  const { host } = options.listen;
  return {
    url: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    reloadTls: (tls) => server.setSecureContext(tlsOptions(tls)),
    close: async () => {
      stopping.abort();
      const closed = once(server, 'close');
      server.close();
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), drainMs);
      await closed;
      clearTimeout(cut);
      shut();
    },
  };
}

function tlsOptions({ cert, key, clientCa }: ServerTls) {
  return { cert, key, ca: clientCa };
}
