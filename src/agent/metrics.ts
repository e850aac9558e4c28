import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Datapath } from '../datapath/datapath.ts';
import type { FlowLog } from '../observe/flow-log.ts';
import type { TunnelDriver } from '../tunnel/driver.ts';
import type { TunnelManager } from '../tunnel/manager.ts';

export interface MetricsDeps {
  readonly datapath: Datapath;
  readonly driver: TunnelDriver;
  readonly tunnels: TunnelManager;
  readonly flows: FlowLog;
}

/** The agent's Prometheus metrics; read from their sources when they are asked for, so that nothing counts twice. */
export class AgentMetrics {
  readonly #registry = new Registry();

  constructor({ datapath, driver, tunnels, flows }: MetricsDeps) {
    const registers = [this.#registry];
    const gauge = (name: string, help: string, labelNames: string[], read: (g: Gauge) => void | Promise<void>) =>
      new Gauge({
        name: `myelin_${name}`,
        help,
        labelNames,
        registers,
        async collect() {
          this.reset();
          await read(this);
        },
      });
    gauge('datapath_dropped_packets_total', 'Packets dropped by the datapath', ['reason', 'direction'], (g) => {
      for (const { reason, direction, packets } of datapath.metrics().drops)
        g.set({ reason: String(reason), direction }, packets);
    });
    gauge('datapath_forwarded_packets_total', 'Packets forwarded by the datapath', ['direction'], (g) => {
      const { forwarded } = datapath.metrics();
      g.set({ direction: 'egress' }, forwarded.egress.packets);
      g.set({ direction: 'ingress' }, forwarded.ingress.packets);
    });
    gauge('datapath_map_entries', 'Entries in use, by map', ['map'], (g) => {
      for (const [map, { used }] of Object.entries(datapath.usage())) g.set({ map }, used);
    });
    gauge('datapath_map_capacity', 'Room for entries, by map', ['map'], (g) => {
      for (const [map, { capacity }] of Object.entries(datapath.usage())) g.set({ map }, capacity);
    });
    gauge('policy_revision', 'Policy revision in force', [], (g) => g.set(datapath.revision));
    gauge('flow_losses_total', 'Flow events lost, by cause', ['cause'], (g) => {
      for (const [cause, count] of Object.entries(flows.losses)) g.set({ cause }, count);
    });
    gauge('tunnel_security_associations', 'Installed security associations', ['direction'], async (g) => {
      const { sas } = await driver.statistics();
      g.set({ direction: 'in' }, sas.in);
      g.set({ direction: 'out' }, sas.out);
    });
    gauge('tunnel_bytes_total', 'Inner bytes through tunnels', ['direction'], async (g) => {
      const { sealed, opened } = await driver.statistics();
      g.set({ direction: 'out' }, sealed.bytes);
      g.set({ direction: 'in' }, opened.bytes);
    });
    gauge('tunnel_dropped_packets_total', 'Packets dropped by the tunnel driver', ['reason'], async (g) => {
      for (const [reason, count] of Object.entries((await driver.statistics()).drops)) g.set({ reason }, count);
    });
    gauge('tunnel_held_packets', 'Packets that wait for a tunnel', [], async (g) =>
      g.set((await driver.statistics()).held.packets),
    );
    gauge('handshake_refusals_total', 'Handshakes refused, by reason', ['reason'], (g) => {
      for (const [reason, count] of Object.entries(tunnels.statistics().refused)) g.set({ reason }, count);
    });
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

  text(): Promise<string> {
    return this.#registry.metrics();
  }
}
