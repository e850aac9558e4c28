import { readFileSync } from 'node:fs';
import { z } from 'zod';
import type { Datapath } from '../datapath/datapath.ts';
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
import type { Conditions } from './conditions.ts';
import type { KeyRing } from './key-ring.ts';
import type { LocalPods } from './local-pods.ts';
import type { AgentMetrics } from './metrics.ts';
import type { AgentOptions } from './options.ts';
import type { PolicyLoop } from './policy-loop.ts';
import type { NodeProxy } from './proxy/proxy.ts';
import type { Answers } from './question-server.ts';
import { answerTrace } from './trace.ts';
import { answerWhy } from './why.ts';
import type {
  EndpointReport,
  KeyReport,
  NameReport,
  StatusReport,
  TraceAnswer,
  TraceQuestion,
  TunnelReport,
  WhyAnswer,
  WhyQuestion,
} from './wire.ts';

export interface ReportsDeps {
  readonly options: AgentOptions;
  readonly datapath: Datapath;
  readonly driver: TunnelDriver;
  readonly tunnels: TunnelManager;
  readonly state: ClusterState;
  readonly feed: ApiFeed;
  readonly policy: PolicyLoop;
  readonly pods: LocalPods;
  readonly flows: FlowLog;
  readonly metrics: AgentMetrics;
  readonly conditions: Conditions;
  /** Absent unless the agent was started to have one. */
  readonly keyRing: KeyRing | undefined;
  readonly proxy: Pick<NodeProxy, 'replace'>;
}

const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')));

/** What the agent says of itself, gathered from the rooms when it is asked. */
export class Reports implements Answers {
  readonly #deps: ReportsDeps;
  readonly #startedAt = new Date().toISOString();

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

  async replaceProxy(): Promise<void> {
    await this.#deps.proxy.replace();
  }

  why(question: WhyQuestion): WhyAnswer {
    const { state, options, datapath } = this.#deps;
    return answerWhy(
      {
        view: state.view,
        node: options.node,
        image: datapath.policy,
        serviceAt: (front, protocol) => datapath.serviceAt(front, protocol),
        nameAt: (uid, address) => {
          const endpoint = datapath.endpointByUid(uid);
          const learnt = endpoint === undefined ? undefined : datapath.nameAt(endpoint.id, address);
          return learnt === undefined || learnt.patterns.length === 0 ? undefined : learnt.name;
        },
        explain: (view, flow) => explain(view, flow).text.split('\n').slice(1),
      },
      question,
    );
  }

  names(): NameReport[] {
    const { options, datapath, state } = this.#deps;
    const { patterns } = datapath.policy;
    return datapath.names().map(({ endpoint, patterns: known, ...learnt }) => {
      const pod = state.pod(datapath.endpointById(endpoint)?.uid ?? '');
      return {
        node: options.node,
        pod: pod === undefined ? '' : podName(pod),
        ...learnt,
        // What no policy has any more is nothing to anybody.
        patterns: known.flatMap(({ number, expiresAt }) => {
          const pattern = patterns.get(number);
          return pattern === undefined ? [] : [{ pattern, expiresAt }];
        }),
      };
    });
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
      conditions: await this.#deps.conditions.all(),
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
}
