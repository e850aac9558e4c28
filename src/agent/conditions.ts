import type { Datapath } from '../datapath/datapath.ts';
import type { Usage } from '../datapath/growth/usage.ts';
import type { EndpointManager } from '../endpoint/manager.ts';
import type { BundleStore } from '../identity/bundle.ts';
import type { NodeCertificate } from '../identity/node-certificate.ts';
import type { SvidStore } from '../identity/svid-store.ts';
import { podName } from '../model/endpoint.ts';
import { formatRule } from '../model/verdict.ts';
import type { PolicyImage } from '../policy/image.ts';
import type { TunnelDriver } from '../tunnel/driver.ts';
import type { TunnelManager } from '../tunnel/manager.ts';
import type { ApiFeed } from './api-feed.ts';
import type { PolicyLoop } from './policy-loop.ts';
import type { NodeProxy, ProxyState } from './proxy/proxy.ts';
import type { Quarantine } from './quarantine.ts';
import type { Serial } from './serial.ts';
import type { SettingsFeed } from './settings-feed.ts';
import type { StatusReport } from './wire.ts';

/** How the controller was when it was last asked. */
export interface ControllerHealth {
  /** Why it did not answer. */
  error: string | undefined;
  /** How far its clock is ahead. */
  readonly clockSkewMs: () => number | undefined;
}

export interface ConditionsDeps {
  readonly datapath: Datapath;
  readonly driver: TunnelDriver;
  readonly tunnels: TunnelManager;
  readonly feed: ApiFeed;
  readonly policy: PolicyLoop;
  readonly services: Serial;
  readonly svids: SvidStore;
  readonly endpoints: EndpointManager;
  readonly bundles: BundleStore;
  readonly settings: SettingsFeed;
  readonly quarantine: Quarantine;
  readonly nodeCertificate: NodeCertificate;
  readonly controller: ControllerHealth;
  readonly proxy: Pick<NodeProxy, 'state'>;
}

/** A map that is fuller than this wants attention before the next revision is refused. */
const fullShare = 0.9;
/** Bookmarks come once a minute: silence for longer than this is an API that is away. */
const silenceMs = 150_000;

/** What an agent's rooms have to complain of, asked when somebody wants to know. */
export class Conditions {
  readonly #deps: ConditionsDeps;
  /** Peers’ certificates that were not valid yet, as last counted. */
  #early = { count: 0, at: Number.NEGATIVE_INFINITY };

  constructor(deps: ConditionsDeps) {
    this.#deps = deps;
  }

  /** What is well and what needs attention, each in words a person can act on. */
  async all(): Promise<StatusReport['conditions']> {
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
      proxy,
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
        'requests',
        datapath.httpUnavailable === undefined
          ? tooBig(datapath.policy)
          : `${datapath.httpUnavailable}: connections that policy admits for their HTTP requests are closed`,
        'are read',
      ),
      condition('proxy', proxyProblem(proxy.state), proxyWords(proxy.state)),
      condition(
        'secrets',
        proxy.state.tls.length === 0
          ? undefined
          : `connections whose TLS policy wants ended or opened are closed: ${proxy.state.tls.join('; ')}`,
        'all that policy names can be used',
      ),
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
      condition('maps', mapProblem(full, datapath.growthProblem), 'have room'),
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

/** @param growth Why maps could not be made larger. */
function mapProblem(full: readonly [string, Usage][], growth: string | undefined): string | undefined {
  const words = full.map(
    ([map, { used, capacity, most }]) =>
      `${map} has ${used} of ${capacity} entries${most !== undefined && most <= capacity ? ', the most there may be' : ''}`,
  );
  if (growth !== undefined) words.push(`they could not be made larger: ${growth}`);
  return words.length === 0 ? undefined : words.join(', ');
}

/** Certificates begin ten minutes before they are made; half of a minute is nobody's network any more. */
const mostSkewMs = 30_000;
/** How long a certificate that was not valid yet stays worth a word. */
const earlyMs = 600_000;

const iso = (time: number) => `${new Date(time).toISOString().slice(0, 19)}Z`;

/** Until there is one, nothing passes that it is to judge. */
function proxyProblem({ needed, running, problem }: ProxyState): string | undefined {
  if (!needed && !running) return undefined;
  if (!running) return `connections that policy leaves to it are closed: ${problem ?? 'it does not run'}`;
  return problem;
}

function proxyWords({ running, pid, stats }: ProxyState): string {
  if (!running) return 'not needed';
  const { connections = 0, allowed = 0, denied = 0 } = stats ?? {};
  return `process ${pid ?? '?'}, ${connections} connections, ${allowed} requests allowed and ${denied} denied`;
}

/** Rule sets whose rules about requests are taken strictly, because they are more than the datapath tells apart. */
function tooBig({ ruleSets, rules }: PolicyImage): string | undefined {
  const unread = [...ruleSets.values()].flatMap(({ unread: reason, rule }) =>
    reason === undefined ? [] : [{ reason, rule }],
  );
  const [first] = unread;
  if (first === undefined) return undefined;
  const isolated = rules.get(first.rule);
  const whose = isolated === undefined ? '' : `, of pods that ${formatRule(isolated)} isolates`;
  return `${unread.length} rule sets are too big to read requests for: one${whose} ${first.reason}`;
}

function certificateWords({ held }: { readonly held: number }, roots: number): string {
  return `${held} certificates, ${roots} trusted roots`;
}
