import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { Datapath } from '../datapath/datapath.ts';
import { EndpointManager } from '../endpoint/manager.ts';
import { CniServer } from '../endpoint/server.ts';
import { requireCapabilities } from '../kernel/probe.ts';
import { familyOf, type IpAddress } from '../model/address.ts';
import { podName } from '../model/endpoint.ts';
import { prefixContains } from '../model/prefix.ts';
import { FlowLog } from '../observe/flow-log.ts';
import { compile } from '../policy/compile.ts';
import { identityOf } from '../policy/lookup.ts';
import { couldTalk } from '../policy/reachable.ts';
import { serviceFronts } from '../service/translation.ts';
import { TunnelManager } from '../tunnel/manager.ts';
import type { PathTable } from '../tunnel/xfrm/sending.ts';
import { Cluster } from './cluster.ts';
import { Conditions } from './conditions.ts';
import { openDriver } from './driver.ts';
import { logDrops } from './drop-log.ts';
import { flowOf, sayFlow } from './flows.ts';
import { Identity } from './identity.ts';
import { KeyRing } from './key-ring.ts';
import { LocalPods } from './local-pods.ts';
import { tendHeap } from './memory.ts';
import { AgentMetrics } from './metrics.ts';
import { MtuWatch } from './mtu-watch.ts';
import { warnOfNode } from './node-events.ts';
import { findUplink, setUpNode } from './node-setup.ts';
import { type AgentOptions, stateDirectory } from './options.ts';
import { ClusterPeers } from './peers.ts';
import { PolicyLoop } from './policy-loop.ts';
import { Proofs } from './proofs.ts';
import { flowOfRequest } from './proxy/flows.ts';
import { type PortHint, portHints } from './proxy/hints.ts';
import { HintedPorts } from './proxy/ports.ts';
import { NodeProxy } from './proxy/proxy.ts';
import { ProxySecrets } from './proxy/secrets.ts';
import { Quarantine } from './quarantine.ts';
import { QuestionServer } from './question-server.ts';
import { Reports } from './reports.ts';
import { RuleNames } from './rule-names.ts';
import { onePerFamily, underlayOf, waitForSelf } from './self.ts';
import { Serial } from './serial.ts';

const objectDirectory = resolve(import.meta.dirname, '../../build/bpf');
/** About 7 MiB when full. */
const keptFlows = 15_000;
const collectMs = 2000;
const collectNamesMs = 60_000;
/** How soon another MTU of the underlay is noticed. */
const lookMs = 2000;
/** Between two periodic events of one connection. */
const reportIntervalNs = 10_000_000_000n;
const denyIntervalNs = 1_000_000_000n;

/**
 * One node's agent: opens the rooms, tells each what it needs of the others, and closes them. Whatever it stops doing,
 * the datapath goes on enforcing what it was told last, and the engine goes on sealing with the keys that it has.
 */
export class Agent {
  readonly #closers: (() => Promise<void> | void)[] = [];

  /**
   * Starts everything; resolves when pods can be added.
   * @throws {MyelinError} with one line that says what is missing and what to do
   */
  static async start(options: AgentOptions, logger: Logger): Promise<Agent> {
    const agent = new Agent();
    try {
      await agent.#start(options, logger);
      return agent;
    } catch (error) {
      await agent.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const close of this.#closers.splice(0).reverse()) await close();
  }

  async #start(options: AgentOptions, logger: Logger): Promise<void> {
    await requireCapabilities();
    mkdirSync(options.runDir, { recursive: true, mode: 0o700 });
    const uplink = await findUplink(options.uplink, options.underlayMtu);

    const flows = new FlowLog({ capacity: keptFlows, ringLosses: () => datapath.losses().ring });
    const datapath = Datapath.open(
      { objectDir: objectDirectory, pinDir: options.bpfDir, onIncompatible: 'recreate', ...options.mapSizes },
      {
        log: logger,
        onEvent: (event) => {
          const flow = flowOf(event, names);
          flows.push(flow);
          sayFlow(flow, logger);
        },
      },
    );
    this.#closers.push(() => datapath.close());

    const cluster = new Cluster(options, { logger, onServices: () => services.schedule() });
    this.#closers.push(() => cluster.close());
    const { api, kubeconfig, state, feed, settings } = cluster;
    const rules = new RuleNames(() => datapath.policy.rules);
    const names = {
      node: options.node,
      state,
      isClusterAddress: (address: IpAddress) =>
        [...options.podCidrs, ...options.serviceCidrs].some((prefix) => prefixContains(prefix, address)),
      rule: (number: number) => rules.of(number),
      service: (id: number) => datapath.serviceName(id),
      domain: (endpoint: number, address: IpAddress) => datapath.nameAt(endpoint, address)?.name,
    };

    // What came from the API so far is not the whole cluster: nothing acts on it before every first list is in.
    let hints: readonly PortHint[] | undefined;
    const services = new Serial(() => {
      hints = undefined;
      return datapath.applyServices(serviceFronts(feed.services, feed.slices));
    }, logger);
    await cluster.start();

    const self = await waitForSelf(cluster, options.node, logger);
    const underlay = underlayOf(self, options.underlayFamily);
    await setUpNode({
      uplink: options.uplink,
      tunnel: 'myelin0',
      nodePods: self.podCidrs,
      clusterPods: options.podCidrs,
    });
    const paths = (carrier: number): PathTable => ({
      open: ({ local, remote }) => datapath.openPath(local, remote, carrier),
      close: ({ local, remote }) => datapath.closePath(local, remote),
      all: () => datapath.paths(),
    });
    const driver = await openDriver({ ...options, underlay, mtu: uplink.podMtu, paths }, logger);
    this.#closers.push(() => driver.close());
    logDrops(driver.driver, logger);
    datapath.setConfig({
      nameFloorNs: BigInt(options.dnsMinTtlSeconds) * 1_000_000_000n,
      nameCeilingNs: BigInt(options.dnsMaxTtlSeconds) * 1_000_000_000n,
      uplinkIfindex: uplink.ifindex,
      tunnelIfindex: driver.ifindex,
      reportIntervalNs,
      denyIntervalNs,
      proxyLearn: true,
    });
    datapath.sayRequests({ every: options.httpSample, perSecond: options.httpEventsPerSecond });
    datapath.attachUplink(uplink.ifindex);
    const { ifindex: device, carrier, change } = driver;
    datapath.carryBy({ device, carrier, changing: change !== undefined });
    change?.over
      .then(() => {
        datapath.carryBy({ device, carrier: change.carrier, changing: false });
        return change.finish();
      })
      .catch((error: unknown) =>
        logger.error({ err: error }, 'the other driver is not gone yet: the next start ends it'),
      );

    const ports = new HintedPorts({
      datapath,
      hints: () => {
        hints ??= portHints(feed.services, feed.slices);
        return hints;
      },
      pod: (uid) => state.pod(uid),
    });
    const secrets = new ProxySecrets({ api, logger, onChange: () => proxy.tellSecrets() });
    this.#closers.push(() => secrets.close());
    const proxy = new NodeProxy(
      {
        socketPath: join(options.runDir, 'proxy.sock'),
        netns: options.proxyNetns,
        objectDir: objectDirectory,
        pinDir: options.bpfDir,
        mtu: uplink.podMtu,
        every: options.httpSample,
        perSecond: options.httpEventsPerSecond,
      },
      {
        datapath,
        portsNeedIt: () => ports.refresh(),
        secrets,
        onFlows: (requests, lost) => {
          flows.countProxy(lost);
          for (const request of requests) {
            const flow = flowOfRequest(request, names);
            flows.push(flow);
            sayFlow(flow, logger);
          }
        },
        logger,
      },
    );
    this.#closers.push(() => proxy.close());
    await proxy.adopt().catch((error: unknown) => logger.error({ err: error }, 'the proxy that runs cannot be used'));

    const proofs = new Proofs(datapath, (uid, address) => identityOf(datapath.policy, uid, address));
    const policy = new PolicyLoop({
      view: () => state.view,
      compile: (view, previous) => compile(view, options.node, previous),
      inForce: () => datapath.policy,
      apply: async (image) => {
        const before = datapath.policy;
        await datapath.applyPolicy(image, {
          tunnelIdentity: (local, remote) =>
            proofs.identityBy((uid, address) => identityOf(image, uid, address), local, remote),
        });
        rules.retire(before.rules);
      },
      onApplied: () => {
        proxy.policyApplied(datapath.policy, datapath.revision);
        proofs.refresh();
        tunnels.policyChanged();
      },
      logger,
    });
    this.#closers.push(() => policy.stop());

    const identity = new Identity(options, {
      api,
      kubeconfig,
      svidLifetimeMs: settings.current.svidLifetimeSeconds * 1000,
      onNodeRenewed: () => quarantine.refresh(),
      logger,
    });
    this.#closers.push(() => identity.close());
    const { bundles, nodeCertificate, svids, controller } = identity;
    const stop = new AbortController();
    this.#closers.push(() => stop.abort());

    const peers = new ClusterPeers(state, {
      node: options.node,
      trustDomain: options.trustDomain,
      underlayFamily: familyOf(underlay),
    });
    const keyRing = options.allowKeyExport
      ? new KeyRing({
          installed: () => driver.driver.list(),
          underlay,
          warn: (message) => warnOfNode(options.node, 'KeysExported', message, { api, logger }),
          logger,
        })
      : undefined;
    this.#closers.push(() => keyRing?.close());
    const tunnels = new TunnelManager(
      {
        trustDomain: options.trustDomain,
        handshakePort: options.handshakePort,
        espPort: options.espPort,
        lifetimeSeconds: options.rekeySeconds,
        ...(options.rekeyBytes === undefined ? {} : { lifetimeBytes: options.rekeyBytes }),
        ...(options.rekeyPackets === undefined ? {} : { lifetimePackets: options.rekeyPackets }),
      },
      {
        driver: driver.driver,
        svid: (uid) => svids.get(uid),
        nodeIdentity: () => nodeCertificate.identity,
        bundles,
        resolver: peers,
        radius: (local, remote) => peers.radius(local, remote, settings.current.breachRadius),
        whyNot: (local, remote) =>
          couldTalk(datapath.policy, local.pod.uid, remote.addresses)
            ? undefined
            : `policy admits nothing between ${podName(local.pod)} and ${podName(remote.pod)}, in either direction`,
        hooks: {
          onProof: (proof) => proofs.hold(proof),
          onForget: (pair, spi) => proofs.forget(pair.local, pair.remote, spi),
        },
        ...(keyRing === undefined ? {} : { onKeys: (sa) => keyRing.take(sa) }),
        logger,
      },
    );

    cluster.onSettings = () => {
      const { svidLifetimeSeconds, rekeySeconds: seconds, rekeyBytes: bytes } = settings.current;
      svids.setLifetime(svidLifetimeSeconds * 1000);
      tunnels.setLifetime({ seconds, bytes });
      tunnels.reconcile().catch((error: unknown) => logger.error({ err: error }, 'tunnels'));
    };
    cluster.onSettings();
    driver.repeatEarly();

    let added = false;
    const pods = new LocalPods({
      datapath,
      state,
      policy,
      svids,
      tunnels,
      peers,
      logger,
      notReady: () => (added ? undefined : { message: 'the agent is starting', limited: false }),
    });
    const endpoints = await EndpointManager.open(
      {
        stateFile: join(stateDirectory(options), 'state.json'),
        cidrs: self.podCidrs,
        mtu: uplink.podMtu,
        nodeAddresses: onePerFamily(self.addresses),
        coolDownMs: options.addressCooldownSeconds * 1000,
      },
      { log: logger, hooks: pods },
    );
    const mtus = new MtuWatch(uplink.ifindex, options.underlayMtu, { driver, endpoints, proxy, logger });
    this.#closers.push(() => mtus.close());
    await mtus.start();
    this.#every(lookMs, async () => mtus.look(), logger);
    this.#every(lookMs, async () => proxy.look(), logger);

    await endpoints.reconcile();
    for (const endpoint of endpoints.list()) pods.prepare(endpoint);
    datapath.removeStrangers();

    const quarantine = new Quarantine({
      bundles,
      pods: () => pods.all.flatMap(({ pod }) => pod ?? []),
      identity: (uid) => {
        const pod = state.pod(uid);
        return pod === undefined ? undefined : peers.local(pod);
      },
      svid: (uid) => svids.get(uid),
      node: () => {
        const [own] = nodeCertificate.identity.chain;
        return { uri: own?.uris[0], serial: own?.serialNumber };
      },
      close: (uids) => datapath.revoke(uids),
      logger,
    });
    const requarantine = () => quarantine.refresh();
    bundles.on('changed', requarantine);
    svids.on('issued', requarantine).on('renewed', requarantine);

    cluster.onView = () => {
      quarantine.refresh();
      policy.schedule();
      pods.refresh();
      reconcile.schedule();
    };
    const reconcile = new Serial(() => tunnels.reconcile(), logger);
    const known = pods.all.flatMap(({ pod }) => (pod === undefined ? [] : (state.pod(pod.uid) ?? [])));
    await tunnels.start(known.map((pod) => peers.local(pod)));
    this.#closers.push(() => tunnels.close());
    const keyed = () => {
      const { opened, answered } = tunnels.statistics();
      return opened + answered;
    };
    this.#closers.push(tendHeap(globalThis.gc, keyed));
    quarantine.refresh();
    await policy.start();
    await services.start();
    reconcile.start();
    identity.keep();
    pods.refresh();
    this.#every(collectMs, () => datapath.collectConnections(stop.signal), logger);
    this.#every(collectNamesMs, async () => datapath.collectNames(), logger);
    if (options.natKeepaliveSeconds > 0)
      this.#every(
        options.natKeepaliveSeconds * 1000,
        () => Promise.all(tunnels.peers().map((peer) => driver.keepAlive(peer))),
        logger,
      );

    const conditions = new Conditions({
      datapath,
      driver: driver.driver,
      tunnels,
      feed,
      policy,
      services,
      svids,
      endpoints,
      bundles,
      settings,
      quarantine,
      nodeCertificate,
      controller,
      proxy,
    });
    const metrics = new AgentMetrics({
      datapath,
      driver: driver.driver,
      tunnels,
      flows,
      svids,
      bundles,
      nodeCertificate,
      quarantine,
      proxy,
      conditions: () => conditions.all(),
    });
    const reports = new Reports({
      options,
      datapath,
      driver: driver.driver,
      tunnels,
      state,
      feed,
      policy,
      pods,
      flows,
      metrics,
      conditions,
      keyRing,
      proxy,
    });
    const questions = new QuestionServer(reports, logger);
    await questions.start(join(options.runDir, 'agent.sock'));
    this.#closers.push(() => questions.close());
    const cni = new CniServer({ path: join(options.runDir, 'cni.sock') }, { log: logger, handler: endpoints });
    await cni.start();
    this.#closers.push(() => cni.close());
    added = true;
    logger.info(
      { node: options.node, driver: driver.driver.name, podCidrs: self.podCidrs, mtu: uplink.podMtu },
      'the agent is ready',
    );
  }

  #every(ms: number, task: () => Promise<unknown>, logger: Logger): void {
    let running = false;
    const timer = setInterval(() => {
      if (running) return;
      running = true;
      task()
        .catch((error: unknown) => logger.error({ err: error }, 'a periodic task failed'))
        .finally(() => {
          running = false;
        });
    }, ms);
    this.#closers.push(() => clearInterval(timer));
  }
}
