import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { ApiClient } from '../api/client/client.ts';
import { readKubeconfig } from '../api/client/kubeconfig.ts';
import { Datapath } from '../datapath/datapath.ts';
import { EndpointManager } from '../endpoint/manager.ts';
import { CniServer } from '../endpoint/server.ts';
import { MtuTable } from '../kernel/path-mtu.ts';
import { requireCapabilities } from '../kernel/probe.ts';
import { familyOf, type IpAddress, parseIp } from '../model/address.ts';
import { podName } from '../model/endpoint.ts';
import { type Prefix, prefixContains } from '../model/prefix.ts';
import { FlowLog } from '../observe/flow-log.ts';
import { compile } from '../policy/compile.ts';
import { identityOf } from '../policy/lookup.ts';
import { couldTalk } from '../policy/reachable.ts';
import { serviceFronts } from '../service/translation.ts';
import { TunnelManager } from '../tunnel/manager.ts';
import type { PathTable } from '../tunnel/xfrm/sending.ts';
import { ApiFeed } from './api-feed.ts';
import { ClusterState } from './cluster-state.ts';
import { Conditions } from './conditions.ts';
import { openDriver } from './driver.ts';
import { logDrops } from './drop-log.ts';
import { flowOf } from './flows.ts';
import { Identity } from './identity.ts';
import { KeyRing } from './key-ring.ts';
import { LocalPods } from './local-pods.ts';
import { AgentMetrics } from './metrics.ts';
import { warnOfNode } from './node-events.ts';
import { findUplink, podMtuOver, setUpNode } from './node-setup.ts';
import { type AgentOptions, stateDirectory } from './options.ts';
import { PathMtu } from './path-mtu.ts';
import { ClusterPeers } from './peers.ts';
import { PolicyLoop } from './policy-loop.ts';
import { Proofs } from './proofs.ts';
import { Quarantine } from './quarantine.ts';
import { QuestionServer } from './question-server.ts';
import { Reports } from './reports.ts';
import { RuleNames } from './rule-names.ts';
import { Serial } from './serial.ts';
import { SettingsFeed } from './settings-feed.ts';

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
      { objectDir: objectDirectory, pinDir: options.bpfDir, onIncompatible: 'recreate' },
      { log: logger, onEvent: (event) => flows.push(flowOf(event, names)) },
    );
    this.#closers.push(() => datapath.close());

    const state = new ClusterState(
      {
        defaultDeny: options.clusterDefault === 'deny',
        podCidrs: options.podCidrs,
        serviceCidrs: options.serviceCidrs,
        trustDomain: options.trustDomain,
      },
      () => onView(),
    );
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
    const services = new Serial(() => datapath.applyServices(serviceFronts(feed.services, feed.slices)), logger);
    let onView: () => void = () => {};
    let onSettings: () => void = () => {};
    const kubeconfig = readKubeconfig(options.kubeconfig);
    const api = new ApiClient(kubeconfig);
    const feed = new ApiFeed(state, {
      api,
      logger,
      onServices: () => services.schedule(),
      policies: { trustDomain: options.trustDomain, rootNamespace: options.istioRootNamespace },
    });
    this.#closers.push(() => feed.close());
    const settings = new SettingsFeed(
      {
        defaultVerdict: options.clusterDefault,
        breachRadius: options.breachRadius,
        svidLifetimeSeconds: options.svidTtlSeconds,
        rekeySeconds: options.rekeySeconds,
        rekeyBytes: options.rekeyBytes,
        istioRootNamespace: options.istioRootNamespace,
      },
      {
        api,
        logger,
        onChange: () => {
          state.setDefaultDeny(settings.current.defaultVerdict === 'deny');
          const { istioRootNamespace: rootNamespace } = settings.current;
          feed.setPolicyContext({ trustDomain: options.trustDomain, rootNamespace });
          onSettings();
          onView();
        },
      },
    );
    this.#closers.push(() => settings.close());
    await Promise.all([feed.start(), settings.start()]);

    const self = await waitForSelf(state, options.node, logger, (listener) => {
      onView = listener;
    });
    const underlay =
      self.addresses.find((address) => familyOf(address) === (options.underlayFamily ?? familyOf(self.addresses[0]))) ??
      self.addresses[0];
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
      xfrm: driver.driver.name === 'xfrm',
      reportIntervalNs,
      denyIntervalNs,
    });
    datapath.sayRequests({ every: options.httpSample, perSecond: options.httpEventsPerSecond });
    datapath.attachUplink(uplink.ifindex);
    if (driver.carrier === undefined) datapath.attachTunnel(driver.ifindex);
    else datapath.attachKernelTunnel(driver.carrier, driver.ifindex);

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

    onSettings = () => {
      const { svidLifetimeSeconds, rekeySeconds: seconds, rekeyBytes: bytes } = settings.current;
      svids.setLifetime(svidLifetimeSeconds * 1000);
      tunnels.setLifetime({ seconds, bytes });
      tunnels.reconcile().catch((error: unknown) => logger.error({ err: error }, 'tunnels'));
    };
    onSettings();
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
    const mtus = new MtuTable();
    this.#closers.push(() => mtus.close());
    const pathMtu = new PathMtu(options.underlayMtu, {
      source: { device: () => mtus.ofDevice(uplink.ifindex), paths: () => mtus.ofPaths() },
      limit: (address, mtu) => driver.limitPath(address, mtu),
      onDevice: (mtu) => {
        endpoints.setMtu(podMtuOver(mtu));
        return driver.raiseMtu(podMtuOver(mtu));
      },
      logger,
    });
    const looks = new Serial(() => pathMtu.look(), logger);
    await looks.start();
    driver.driver.on('up', () => {
      pathMtu.forget();
      looks.schedule();
    });
    driver.driver.on('drop', ({ reason }) => {
      if (reason === 'TOO_BIG') looks.schedule();
    });
    this.#every(lookMs, async () => looks.schedule(), logger);

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

    onView = () => {
      quarantine.refresh();
      policy.schedule();
      pods.refresh();
      reconcile.schedule();
    };
    const reconcile = new Serial(() => tunnels.reconcile(), logger);
    const known = pods.all.flatMap(({ pod }) => (pod === undefined ? [] : (state.pod(pod.uid) ?? [])));
    await tunnels.start(known.map((pod) => peers.local(pod)));
    this.#closers.push(() => tunnels.close());
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

/** What the API must say of a node before it can have pods. */
interface Self {
  readonly addresses: readonly [IpAddress, ...IpAddress[]];
  readonly podCidrs: readonly Prefix[];
}

/** @returns Who this node is in the API, or what is still missing. */
function selfOf(state: ClusterState, name: string): Self | string {
  const node = state.node(name);
  if (node === undefined) return `the API has no node ${name}: is it registered under that name?`;
  const [first, ...rest] = node.addresses;
  if (first === undefined) return `node ${name} has no InternalIP in its status`;
  if (node.podCidrs.length === 0) return `node ${name} has no pod CIDR yet: is the controller running?`;
  return { addresses: [first, ...rest], podCidrs: node.podCidrs };
}

function onePerFamily(addresses: readonly IpAddress[]): IpAddress[] {
  const families = ([4, 6] as const).map((family) => addresses.find((address) => familyOf(address) === family));
  return families.flatMap((address) => address ?? []).map(parseIp);
}

/** A node may be started before it is registered, or before the controller gave it its pod CIDRs: it waits, and says for what. */
function waitForSelf(
  state: ClusterState,
  name: string,
  logger: Logger,
  listen: (onView: () => void) => void,
): Promise<Self> {
  return new Promise((resolve) => {
    let said = '';
    const look = () => {
      const self = selfOf(state, name);
      if (typeof self !== 'string') {
        listen(() => {});
        resolve(self);
      } else if (self !== said) {
        said = self;
        logger.warn(self);
      }
    };
    listen(look);
    look();
  });
}
