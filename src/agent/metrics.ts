import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Datapath } from '../datapath/datapath.ts';
import type { BundleStore } from '../identity/bundle.ts';
import type { NodeCertificate } from '../identity/node-certificate.ts';
import type { SvidStore } from '../identity/svid-store.ts';
import type { FlowLog } from '../observe/flow-log.ts';
import type { TunnelDriver } from '../tunnel/driver.ts';
import type { TunnelManager } from '../tunnel/manager.ts';
import type { NodeProxy } from './proxy/proxy.ts';
import type { Quarantine } from './quarantine.ts';
import type { StatusReport } from './wire.ts';

export interface MetricsDeps {
  readonly datapath: Datapath;
  readonly driver: TunnelDriver;
  readonly tunnels: TunnelManager;
  readonly flows: FlowLog;
  readonly svids: SvidStore;
  readonly bundles: BundleStore;
  readonly nodeCertificate: NodeCertificate;
  readonly quarantine: Quarantine;
  readonly proxy: Pick<NodeProxy, 'state'>;
  readonly conditions: () => Promise<StatusReport['conditions']>;
}

type Labels = Record<string, string>;
type Read = (add: (labels: Labels, value: number) => void) => void | Promise<void>;
type What = [name: string, help: string, labelNames: string[], read: Read];

/** The agent's Prometheus metrics; read from their sources when they are asked for, so that nothing counts twice. */
export class AgentMetrics {
  readonly #registry = new Registry();

  constructor(deps: MetricsDeps) {
    this.#datapath(deps);
    this.#tunnels(deps);
    this.#handshakes(deps);
    this.#identity(deps);
    this.#proxy(deps);
    this.#gauge(
      'condition',
      '1 where a condition of `myelin status` is well, 0 where it is not',
      ['name'],
      async (add) => {
        for (const { name, ok } of await deps.conditions()) add({ name }, ok ? 1 : 0);
      },
    );
  }

  text(): Promise<string> {
    return this.#registry.metrics();
  }

  #datapath({ datapath, flows }: MetricsDeps): void {
    this.#counter(
      'datapath_dropped_packets_total',
      'Packets dropped by the datapath',
      ['reason', 'direction'],
      (add) => {
        for (const { reason, direction, packets } of datapath.metrics().drops)
          add({ reason: String(reason), direction }, packets);
      },
    );
    this.#counter('datapath_forwarded_packets_total', 'Packets forwarded by the datapath', ['direction'], (add) => {
      const { forwarded } = datapath.metrics();
      add({ direction: 'egress' }, forwarded.egress.packets);
      add({ direction: 'ingress' }, forwarded.ingress.packets);
    });
    this.#counter(
      'policy_audited_packets_total',
      'Packets with which connections were judged, that passed and audited policies would have denied',
      ['direction'],
      (add) => {
        const { audited } = datapath.metrics();
        add({ direction: 'egress' }, audited.egress.packets);
        add({ direction: 'ingress' }, audited.ingress.packets);
      },
    );
    this.#gauge('datapath_map_entries', 'Entries in use, by map', ['map'], (add) => {
      for (const [map, { used }] of Object.entries(datapath.usage())) add({ map }, used);
    });
    this.#gauge('datapath_map_capacity', 'Room for entries, by map', ['map'], (add) => {
      for (const [map, { capacity }] of Object.entries(datapath.usage())) add({ map }, capacity);
    });
    this.#gauge('policy_revision', 'Policy revision in force', [], (add) => add({}, datapath.revision));
    this.#counter('flow_losses_total', 'Flow events lost, by cause', ['cause'], (add) => {
      for (const [cause, count] of Object.entries(flows.losses)) add({ cause }, count);
    });
  }

  #tunnels({ driver, tunnels }: MetricsDeps): void {
    this.#gauge('tunnels', 'Pairs of pods, by the state of their tunnel', ['state'], async (add) => {
      const counts = new Map<string, number>();
      for (const { state } of await tunnels.list()) counts.set(state, (counts.get(state) ?? 0) + 1);
      for (const state of ['up', 'rekeying', 'opening', 'waiting', 'down']) add({ state }, counts.get(state) ?? 0);
    });
    this.#gauge('tunnel_security_associations', 'Installed security associations', ['direction'], async (add) => {
      const { sas } = await driver.statistics();
      add({ direction: 'in' }, sas.in);
      add({ direction: 'out' }, sas.out);
    });
    this.#counter('tunnel_bytes_total', 'Inner bytes through tunnels', ['direction'], async (add) => {
      const { sealed, opened } = await driver.statistics();
      add({ direction: 'out' }, sealed.bytes);
      add({ direction: 'in' }, opened.bytes);
    });
    this.#counter('tunnel_packets_total', 'Inner packets through tunnels', ['direction'], async (add) => {
      const { sealed, opened } = await driver.statistics();
      add({ direction: 'out' }, sealed.packets);
      add({ direction: 'in' }, opened.packets);
    });
    this.#counter('tunnel_dropped_packets_total', 'Packets dropped by the tunnel driver', ['reason'], async (add) => {
      for (const [reason, count] of Object.entries((await driver.statistics()).drops)) add({ reason }, count);
    });
    this.#gauge('tunnel_held_packets', 'Packets that wait for a tunnel', [], async (add) =>
      add({}, (await driver.statistics()).held.packets),
    );
    this.#counter('tunnel_rekeys_total', 'Keys replaced by newer ones while they were up', [], (add) =>
      add({}, tunnels.statistics().rekeys),
    );
    this.#counter('tunnel_revoked_total', 'Tunnels ended because one of their ends was revoked', [], (add) =>
      add({}, tunnels.statistics().revoked),
    );
  }

  #handshakes({ tunnels }: MetricsDeps): void {
    this.#counter(
      'handshake_refusals_total',
      'Handshakes refused, by reason and by who refused',
      ['reason', 'by'],
      (add) => {
        const { refused, refusedByPeer } = tunnels.statistics();
        for (const [reason, count] of Object.entries(refused)) add({ reason, by: 'us' }, count);
        for (const [reason, count] of Object.entries(refusedByPeer)) add({ reason, by: 'peer' }, count);
      },
    );
    this.#counter(
      'handshake_tls_errors_total',
      'TLS failures at the handshake port, by OpenSSL’s reason',
      ['reason'],
      (add) => {
        for (const [reason, count] of Object.entries(tunnels.statistics().tlsErrors)) add({ reason }, count);
      },
    );
    this.#gauge('handshake_connections', 'Connections at the handshake port', [], (add) =>
      add({}, tunnels.statistics().connections),
    );
    this.#gauge('handshake_threads', 'Threads that do handshakes now', [], (add) =>
      add({}, tunnels.statistics().threads),
    );
    this.#gauge('node_sessions', 'Sessions with other nodes that pairs derive their keys from', [], (add) =>
      add({}, tunnels.statistics().nodeSessions),
    );
    this.#counter('node_handshakes_total', 'Handshakes of nodes for such sessions, by either side', [], (add) =>
      add({}, tunnels.statistics().nodeHandshakes),
    );
    const registers = [this.#registry];
    const outcomes = new Counter({
      name: 'myelin_handshakes_total',
      help: 'Handshakes, by role and outcome',
      labelNames: ['role', 'outcome'],
      registers,
    });
    const seconds = new Histogram({
      name: 'myelin_handshake_seconds',
      help: 'Duration of handshakes that succeeded',
      labelNames: ['role'],
      buckets: [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5],
      registers,
    });
    tunnels.on('handshake', ({ role, outcome, durationMs }) => {
      outcomes.inc({ role, outcome });
      if (outcome === 'done') seconds.observe({ role }, durationMs / 1000);
    });
  }

  #identity({ svids, bundles, nodeCertificate, quarantine }: MetricsDeps): void {
    this.#gauge('certificates', 'Pods of this node, by whether they have a valid certificate', ['state'], (add) => {
      const { held, waiting } = svids.statistics();
      add({ state: 'held' }, held);
      add({ state: 'waiting' }, waiting);
    });
    this.#counter('certificate_requests_total', 'Certificates asked for, by outcome', ['outcome'], (add) => {
      const { issued, renewed, failed, expired } = svids.statistics();
      for (const [outcome, count] of Object.entries({ issued, renewed, failed, expired })) add({ outcome }, count);
    });
    this.#gauge('node_certificate_expiry_seconds', 'When the node’s own certificate ends, Unix time', [], (add) =>
      add({}, nodeCertificate.notAfter / 1000),
    );
    this.#gauge('trust_bundle_sequence', 'Trust bundle in force', [], (add) => add({}, bundles.current.sequence));
    this.#gauge('revocations', 'What is revoked, by kind', ['kind'], (add) => {
      const { serials, podUids, spiffeIds } = bundles.current.revocations;
      add({ kind: 'serial' }, serials.size);
      add({ kind: 'pod' }, podUids.size);
      add({ kind: 'identity' }, spiffeIds.size);
    });
    this.#gauge('revoked_pods', 'Pods of this node that are cut off', [], (add) => add({}, quarantine.held.length));
  }

  #proxy({ proxy }: MetricsDeps): void {
    this.#gauge('proxy_needed', '1 where policy leaves connections to the proxy', [], (add) =>
      add({}, proxy.state.needed ? 1 : 0),
    );
    this.#gauge('proxy_running', '1 where the proxy runs', [], (add) => add({}, proxy.state.running ? 1 : 0));
    this.#gauge('proxy_connections', 'Connections through the proxy', [], (add) =>
      add({}, proxy.state.stats?.connections ?? 0),
    );
    this.#gauge('proxy_streams', 'Streams of HTTP/2 through the proxy', [], (add) =>
      add({}, proxy.state.stats?.streams ?? 0),
    );
    this.#counter('proxy_requests_total', 'Requests that the proxy judged', ['verdict'], (add) => {
      const { stats } = proxy.state;
      if (stats === undefined) return;
      add({ verdict: 'allow' }, stats.allowed);
      add({ verdict: 'deny' }, stats.denied);
    });
    this.#counter(
      'proxy_refused_total',
      'Connections that the proxy refused unjudged, by reason',
      ['reason'],
      (add) => {
        for (const [reason, count] of Object.entries(proxy.state.stats?.refused ?? {})) add({ reason }, count);
      },
    );
  }

  #gauge(...what: What): void {
    new Gauge(this.#options(...what));
  }

  /** Of what its source counts from the source's own start: a restart there is one here. */
  #counter(...what: What): void {
    new Counter(this.#options(...what));
  }

  #options(...[name, help, labelNames, read]: What) {
    return {
      name: `myelin_${name}`,
      help,
      labelNames,
      registers: [this.#registry],
      async collect(this: { reset(): void; inc(labels: Labels, value: number): void }) {
        this.reset();
        await quietly(() => read((labels, value) => this.inc(labels, value)));
      },
    };
  }
}

/** A source that does not answer (an engine that is away) leaves its own metrics out, and the others are there. */
async function quietly(read: () => void | Promise<void>): Promise<void> {
  try {
    await read();
  } catch {
    // `myelin_condition` says which source it is.
  }
}
