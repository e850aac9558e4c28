import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { Datapath } from '../datapath/datapath.ts';
import type { EndpointManager } from '../endpoint/manager.ts';
import type { BundleStore } from '../identity/bundle.ts';
import type { NodeCertificate } from '../identity/node-certificate.ts';
import type { SvidStore } from '../identity/svid-store.ts';
import { podName } from '../model/endpoint.ts';
import { MyelinError } from '../model/error.ts';
import { reservedIdentity } from '../model/identity.ts';
import type { FlowLog } from '../observe/flow-log.ts';
import { explain } from '../policy/explain.ts';
import { identityOf } from '../policy/lookup.ts';
import type { TunnelDriver } from '../tunnel/driver.ts';
import type { TunnelManager } from '../tunnel/manager.ts';
import type { ApiFeed } from './api-feed.ts';
import type { ClusterState } from './cluster-state.ts';
import type { KeyRing } from './key-ring.ts';
import type { LocalPods } from './local-pods.ts';
import type { AgentMetrics } from './metrics.ts';
import type { AgentOptions } from './options.ts';
import type { PolicyLoop } from './policy-loop.ts';
import type { Quarantine } from './quarantine.ts';
import type { Answers } from './question-server.ts';
import type { Serial } from './serial.ts';
import type { SettingsFeed } from './settings-feed.ts';
import { answerTrace } from './trace.ts';
import { answerWhy } from './why.ts';
import type {
  EndpointReport,
  KeyReport,
  StatusReport,
  TraceAnswer,
  TraceQuestion,
  TunnelReport,
  WhyAnswer,
  WhyQuestion,
} from './wire.ts';

/** How the controller was when it was last asked. */
export interface ControllerHealth {
  /** Why it did not answer. */
  error: string | undefined;
  /** How far its clock is ahead. */
  readonly clockSkewMs: () => number | undefined;
}

export interface ReportsDeps {
  readonly options: AgentOptions;
  readonly datapath: Datapath;
  readonly driver: TunnelDriver;
  readonly tunnels: TunnelManager;
  readonly state: ClusterState;
  readonly feed: ApiFeed;
  readonly policy: PolicyLoop;
  readonly services: Serial;
  readonly svids: SvidStore;
  readonly endpoints: EndpointManager;
  readonly pods: LocalPods;
  readonly flows: FlowLog;
  readonly metrics: AgentMetrics;
  readonly bundles: BundleStore;
  readonly settings: SettingsFeed;
  readonly quarantine: Quarantine;
  readonly nodeCertificate: NodeCertificate;
  readonly controller: ControllerHealth;
  /** Absent unless the agent was started to have one. */
  readonly keyRing: KeyRing | undefined;
}

const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')));

/** A map that is fuller than this wants attention before the next revision is refused. */
const fullShare = 0.9;
/** Bookmarks come once a minute: silence for longer than this is an API that is away. */
const silenceMs = 150_000;

/** What the agent says of itself, gathered from the rooms when it is asked. */
export class Reports implements Answers {
  readonly #deps: ReportsDeps;
  readonly #startedAt = new Date().toISOString();
  /** Peers’ certificates that were not valid yet, as last counted. */
  #early = { count: 0, at: Number.NEGATIVE_INFINITY };

  constructor(deps: ReportsDeps) {
    this.#deps = deps;
  }

  get flows(): FlowLog {
    return this.#deps.flows;
  }

  metrics(): Promise<string> {
    return this.#deps.metrics.text();
  }

  trace(question: TraceQuestion): Promise<TraceAnswer> {
    const { state, tunnels, options } = this.#deps;
    return answerTrace(question, { node: options.node, state, tunnels, list: () => this.tunnels() });
  }

  async keys(): Promise<KeyReport[]> {
    const { keyRing } = this.#deps;
    if (keyRing === undefined)
      throw new MyelinError('NotAllowed', 'keys cannot be read: the agent was not started with --allow-key-export');
    return await keyRing.export();
  }

  why(question: WhyQuestion): WhyAnswer {
    const { state, options, datapath } = this.#deps;
    return answerWhy(
      {
        view: state.view,
        node: options.node,
        image: datapath.policy,
        explain: (view, flow) => explain(view, flow).text.split('\n').slice(1),
      },
      question,
    );
  }

  endpoints(): EndpointReport[] {
    const { pods, datapath } = this.#deps;
    return pods.all.map((endpoint) => {
      const uid = endpoint.pod?.uid ?? '';
      const [address] = endpoint.addresses;
      const identity = address === undefined ? undefined : identityOf(datapath.policy, uid, address);
      return {
        namespace: endpoint.pod?.namespace ?? '',
        pod: endpoint.pod?.name ?? endpoint.containerId,
        uid,
        addresses: [...endpoint.addresses],
        interface: endpoint.hostInterface,
        identity: identity ?? reservedIdentity.any,
        ready: datapath.policy.endpoints.has(uid),
      };
    });
  }

  async tunnels(): Promise<TunnelReport[]> {
    const { tunnels, options } = this.#deps;
    return (await tunnels.list()).map(({ local, remote, lastErrorCode: _, ...tunnel }) => ({
      node: options.node,
      localPod: podName(local),
      remotePod: podName(remote),
      ...tunnel,
    }));
  }

  async status(): Promise<StatusReport> {
    const { options, driver, datapath, state, feed, policy, flows, tunnels, pods } = this.#deps;
    const list = await tunnels.list();
    const count = (...states: string[]) => list.filter(({ state: s }) => states.includes(s)).length;
    const { ruleSets, identities } = datapath.policy;
    const drops: Record<string, number> = {};
    for (const { reason, packets } of datapath.metrics().drops)
      drops[String(reason)] = (drops[String(reason)] ?? 0) + packets;
    const tunnelDrops = await driver.statistics().then(
      (statistics) => statistics.drops,
      () => ({}),
    );
    return {
      node: options.node,
      version,
      startedAt: this.#startedAt,
      driver: driver.name,
      conditions: await this.conditions(),
      endpoints: pods.all.length,
      policy: {
        revision: datapath.revision,
        policies: state.policies.length,
        identities: identities.size,
        ruleSets: ruleSets.size,
        maps: datapath.usage(),
        broken: feed.broken,
        ...(policy.refused === undefined ? {} : { refused: policy.refused }),
      },
      tunnels: {
        up: count('up', 'rekeying'),
        opening: count('opening'),
        failed: count('waiting', 'down'),
        refusals: { ...tunnels.statistics().refused },
      },
      drops: { datapath: drops, tunnel: tunnelDrops },
      losses: flows.losses,
    };
  }

  /** What is well and what needs attention. */
  async conditions(): Promise<StatusReport['conditions']> {
    const {
      feed,
      policy,
      services,
      svids,
      driver,
      endpoints,
      datapath,
      bundles,
      settings,
      quarantine,
      controller,
      nodeCertificate,
    } = this.#deps;
    const { health } = feed;
    const silent = Date.now() - health.lastContact > silenceMs;
    const certificates = svids.statistics();
    const engine = await driver.statistics().then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const usage = endpoints.usage();
    const full = Object.entries(datapath.usage()).filter(([, { used, capacity }]) => used > fullShare * capacity);
    const condition = (name: string, problem: string | undefined, well: string) => ({
      name,
      ok: problem === undefined,
      message: problem ?? well,
    });
    return [
      condition(
        'api',
        health.error ?? (silent ? 'nothing heard for over two minutes: what was known stays in force' : undefined),
        'connected',
      ),
      condition('policy', policy.refused, `revision ${datapath.revision} in force`),
      condition(
        'understood',
        feed.broken.length === 0
          ? undefined
          : feed.broken.map(({ policy: name, message }) => `${name} denies all: ${message}`).join('; '),
        'every policy',
      ),
      condition('services', services.error, 'in force'),
      condition(
        'settings',
        settings.problems.length === 0 ? undefined : `the strictest hold: ${settings.problems.join('; ')}`,
        `default ${settings.current.defaultVerdict}`,
      ),
      condition(
        'revoked',
        quarantine.held.length === 0
          ? undefined
          : quarantine.held.map(({ pod, why }) => `${podName(pod)} is cut off: ${why}`).join('; '),
        'no pod of this node',
      ),
      condition(
        'controller',
        controller.error === undefined ? undefined : `${controller.error}: certificates are not renewed meanwhile`,
        `trust bundle ${bundles.current.sequence}`,
      ),
      condition('identity', this.#identityProblem(), certificateWords(certificates, bundles.current.roots.length)),
      condition('node', this.#nodeProblem(), `certificate until ${iso(nodeCertificate.notAfter)}`),
      condition('clock', this.#clockProblem(), 'agrees with the controller’s'),
      condition(driver.name, engine, 'running'),
      condition(
        'addresses',
        usage.inUse >= usage.size ? `all ${usage.size} are in use` : undefined,
        `${usage.inUse} of ${usage.size} in use, ${usage.coolingDown} resting`,
      ),
      condition(
        'maps',
        full.length === 0
          ? undefined
          : full.map(([map, { used, capacity }]) => `${map} has ${used} of ${capacity} entries`).join(', '),
        'have room',
      ),
    ];
  }

  #identityProblem(): string | undefined {
    const failing = this.#deps.svids.failing();
    const [first] = failing;
    if (first === undefined) {
      const { waiting } = this.#deps.svids.statistics();
      return waiting === 0 ? undefined : `${waiting} pods have no certificate yet`;
    }
    const without = failing.filter(({ hasOne }) => !hasOne).length;
    const words = [
      ...(without > 0 ? [`${without} pods have no certificate`] : []),
      ...(failing.length > without ? [`${failing.length - without} cannot be renewed`] : []),
    ];
    return `${words.join(', ')}; ${podName(first.pod)}: ${first.error.message}`;
  }

  #nodeProblem(): string | undefined {
    const { error, notAfter } = this.#deps.nodeCertificate;
    if (Date.now() >= notAfter)
      return `the node’s certificate has expired at ${iso(notAfter)}: give it a new one and restart`;
    return error === undefined
      ? undefined
      : `the node’s certificate ends ${iso(notAfter)} and cannot be renewed: ${error}`;
  }

  #clockProblem(): string | undefined {
    const { controller, tunnels } = this.#deps;
    const skew = controller.clockSkewMs() ?? 0;
    if (Math.abs(skew) > mostSkewMs)
      return `this node’s clock is ${Math.round(Math.abs(skew) / 1000)} s ${skew > 0 ? 'behind' : 'ahead of'} the controller’s: certificates will seem not valid yet, or expired`;
    const count = tunnels.statistics().refused['not-yet-valid'] ?? 0;
    if (count > this.#early.count) this.#early = { count, at: Date.now() };
    return Date.now() - this.#early.at > earlyMs
      ? undefined
      : `${count} certificates of peers were not valid yet, the last of them lately: is a clock wrong, here or there?`;
  }
}

/** Certificates begin ten minutes before they are made; half of a minute is nobody's network any more. */
const mostSkewMs = 30_000;
/** How long a certificate that was not valid yet stays worth a word. */
const earlyMs = 600_000;

const iso = (time: number) => `${new Date(time).toISOString().slice(0, 19)}Z`;

function certificateWords({ held }: { readonly held: number }, roots: number): string {
  return `${held} certificates, ${roots} trusted roots`;
}
