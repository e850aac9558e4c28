import { availableParallelism } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { growingNames, grows } from '../datapath/growth/capacity.ts';
import { MyelinError } from '../model/error.ts';
import { type Prefix, parsePrefix } from '../model/prefix.ts';
import { defaultRootNamespace } from '../policy/istio/scope.ts';

/** How an agent is started. The defaults are those of a node that runs one cluster; a lab passes its own directories. */
export interface AgentOptions {
  readonly node: string;
  /** Sockets and state of this node's agent; made 0700 if it is not there. */
  readonly runDir: string;
  /** What must outlive a reboot: which address is whose. Absent: /var/lib/myelin, or `runDir` where that is not the default. */
  readonly stateDir?: string;
  /** Where the datapath is pinned; on a bpffs. */
  readonly bpfDir: string;
  /** Path of the network namespace of this node's proxy, made when it is needed. */
  readonly proxyNetns: string;
  readonly uplink: string;
  /** What the underlay takes, where that is less than the uplink's MTU. */
  readonly underlayMtu?: number;
  readonly kubeconfig: string;
  /** Base URL of the controller's CA service. */
  readonly controller: string;
  readonly nodeCert: string;
  readonly nodeKey: string;
  readonly ca: string;
  readonly trustDomain: string;
  /** Istio's policies of this namespace are about the whole mesh. */
  readonly istioRootNamespace: string;
  readonly podCidrs: readonly Prefix[];
  readonly serviceCidrs: readonly Prefix[];
  readonly driver: 'auto' | 'engine' | 'xfrm';
  /** What `auto` takes where the machine has both. */
  readonly preferDriver: 'engine' | 'xfrm';
  /** That seal in the engine, and as many that open. */
  readonly threads: number;
  /** Which of the nodes' addresses tunnels run between; absent: this node's first. */
  readonly underlayFamily?: 4 | 6;
  /** 0: this node is behind no NAT. */
  readonly natKeepaliveSeconds: number;
  /** An address that a pod was told by DNS counts for so long at least, and at most, whatever its TTL. */
  readonly dnsMinTtlSeconds: number;
  readonly dnsMaxTtlSeconds: number;
  /** Of so many HTTP requests that pass, one is a flow; 0: none. */
  readonly httpSample: number;
  /** Of HTTP requests that pass, and of those that are refused, so many are flows on each CPU; the rest is counted. */
  readonly httpEventsPerSecond: number;
  /** Of maps of the datapath that grow: how many entries they begin with, and may come to have. */
  readonly mapSizes: MapSizes;
  readonly handshakePort: number;
  readonly espPort: number;
  /** What happens to a pod that no policy selects. */
  readonly clusterDefault: 'allow' | 'deny';
  /** What pods' keys come out of where neither ClusterSettings nor a namespace says so. */
  readonly breachRadius: 'pod' | 'node';
  readonly svidTtlSeconds: number;
  readonly rekeySeconds: number;
  readonly rekeyBytes?: number;
  readonly rekeyPackets?: number;
  /** How long an address that a pod gave up is given to no other. */
  readonly addressCooldownSeconds: number;
  /** Root may ask for the tunnels' keys (`myelin debug keys`). */
  readonly allowKeyExport: boolean;
  readonly logLevel: string;
}

/** By map name; what is not named is as src/datapath/growth/capacity.ts and bpf/lib/maps.h say. */
export interface MapSizes {
  readonly maxEntries: Readonly<Record<string, number>>;
  readonly mostEntries: Readonly<Record<string, number>>;
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 65_535)
    throw new InvalidArgumentError('expected a port, 1 to 65535');
  return value;
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('expected a whole number of seconds');
  return value;
}

function threads(text: string): number {
  const value = Number(text);
  if (![1, 2, 4, 8].includes(value)) throw new InvalidArgumentError('expected 1, 2, 4 or 8');
  return value;
}

/** @returns How many seal, and how many open, where nobody says: together at most as many as there are processors. */
function threadsFor(processors: number): number {
  return [8, 4, 2].find((each) => 2 * each <= processors) ?? 1;
}

function packets(text: string): number {
  const value = wholeNumber(text);
  if (value < 1000) throw new InvalidArgumentError('expected at least 1000 packets');
  return value;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('expected a whole number');
  return value;
}

function mtu(text: string): number {
  const value = wholeNumber(text);
  if (value < 672 || value > 65_535) throw new InvalidArgumentError('expected an MTU, 672 to 65535');
  return value;
}

function bytes(text: string): number {
  const value = wholeNumber(text);
  if (value < 65_536) throw new InvalidArgumentError('expected at least 65536 bytes');
  return value;
}

function prefixes(text: string): Prefix[] {
  try {
    return text.split(',').map(parsePrefix);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof MyelinError ? error.message : String(error));
  }
}

/** `policy=1024..65536,peers=256`; either number may be left away. */
function mapSizes(text: string): MapSizes {
  const maxEntries: Record<string, number> = {};
  const mostEntries: Record<string, number> = {};
  for (const part of text.split(',')) {
    const [, name = '', first = '', , last = ''] = /^(\w+)=(\d*)(\.\.(\d+))?$/.exec(part) ?? [];
    if (!grows(name))
      throw new InvalidArgumentError(`expected MAP=BEGIN..MOST with a map of ${[...growingNames].join(', ')}`);
    for (const [digits, record] of [
      [first, maxEntries],
      [last, mostEntries],
    ] as const) {
      const value = Number(digits);
      if (digits !== '' && (value < 1 || value > 2 ** 24))
        throw new InvalidArgumentError('expected 1 to 16777216 entries');
      if (digits !== '') record[name] = value;
    }
  }
  return { maxEntries, mostEntries };
}

const defaultRunDir = '/run/myelin';
const defaultStateDir = '/var/lib/myelin';

/** Where the agent keeps what must outlive a reboot. */
export function stateDirectory({ stateDir, runDir }: Pick<AgentOptions, 'stateDir' | 'runDir'>): string {
  return stateDir ?? (runDir === defaultRunDir ? defaultStateDir : runDir);
}

/** The agent's command line, with `action` called on what it says. */
export function agentCommand(action: (options: AgentOptions) => Promise<void>): Command {
  return new Command('myelin-agent')
    .description('the node agent: CNI server, policy compiler, tunnels’ control, telemetry')
    .addOption(new Option('--node <name>', 'this node’s name in the API').env('NODE_NAME').makeOptionMandatory())
    .option('--run-dir <dir>', 'sockets', defaultRunDir)
    .option('--state-dir <dir>', 'what must outlive a reboot (default: /var/lib/myelin, or another --run-dir)')
    .option('--bpf-dir <dir>', 'where the datapath is pinned', '/sys/fs/bpf/myelin')
    .option(
      '--proxy-netns <path>',
      'the network namespace of the proxy, where one is needed',
      '/run/netns/myelin-proxy',
    )
    .option('--uplink <device>', 'the device that reaches the other nodes', 'eth0')
    .option('--underlay-mtu <bytes>', 'what the underlay takes, where that is less than the uplink’s MTU', mtu)
    .addOption(new Option('--kubeconfig <file>', 'how to reach the API').env('KUBECONFIG').makeOptionMandatory())
    .requiredOption('--controller <url>', 'the controller’s CA service, such as https://controller:7443')
    .requiredOption('--node-cert <file>', 'this node’s certificate (PEM)')
    .requiredOption('--node-key <file>', 'its private key (PEM)')
    .requiredOption('--ca <file>', 'the cluster’s trust bundle (PEM)')
    .option('--trust-domain <name>', 'SPIFFE trust domain', 'cluster.local')
    .option('--istio-root-namespace <name>', 'whose Istio policies are about the whole mesh', defaultRootNamespace)
    .option('--pod-cidrs <list>', 'the cluster’s pod prefixes', prefixes, prefixes('10.244.0.0/16,fd00:10:244::/56'))
    .option(
      '--service-cidrs <list>',
      'the cluster’s service prefixes',
      prefixes,
      prefixes('10.96.0.0/16,fd00:10:96::/112'),
    )
    .addOption(new Option('--driver <name>', 'who does ESP').choices(['auto', 'engine', 'xfrm']).default('auto'))
    .addOption(
      new Option('--prefer-driver <name>', 'what auto takes where the machine has both')
        .choices(['engine', 'xfrm'])
        .default('engine'),
    )
    .option(
      '--threads <n>',
      'that seal in the engine, and as many that open: 1, 2, 4 or 8',
      threads,
      threadsFor(availableParallelism()),
    )
    .addOption(
      new Option('--underlay-family <n>', 'which of the nodes’ addresses tunnels run between (default: of the first)')
        .choices(['4', '6'])
        .argParser((text) => (text === '6' ? 6 : 4)),
    )
    .option('--nat-keepalive-seconds <n>', 'for a node behind a NAT: how often its mappings are kept', wholeNumber, 0)
    .option(
      '--dns-min-ttl-seconds <n>',
      'how long addresses of DNS names that policy allows count, at least',
      seconds,
      60,
    )
    .option('--dns-max-ttl-seconds <n>', 'and at most', seconds, 86_400)
    .option('--http-sample <n>', 'of so many HTTP requests that pass, one is shown; 0: none', wholeNumber, 1)
    .option('--http-events-per-second <n>', 'how many HTTP requests are shown, for each CPU', wholeNumber, 100)
    .addOption(
      new Option(
        '--map-sizes <list>',
        'entries that maps begin with, and may come to have: policy=1024..65536,peers=256',
      )
        .default({ maxEntries: {}, mostEntries: {} }, 'as they are built')
        .argParser(mapSizes),
    )
    .option('--handshake-port <port>', 'TCP port of handshakes', port, 4747)
    .option('--esp-port <port>', 'UDP port of ESP', port, 4500)
    .addOption(
      new Option('--cluster-default <verdict>', 'for pods that no policy selects')
        .choices(['allow', 'deny'])
        .default('allow'),
    )
    .addOption(
      new Option('--breach-radius <radius>', 'a handshake for each pair of pods, or one for each pair of nodes')
        .choices(['pod', 'node'])
        .default('pod'),
    )
    .option('--svid-ttl-seconds <n>', 'how long a pod’s certificate lives', seconds, 3600)
    .option('--rekey-seconds <n>', 'how long a security association lives', seconds, 3600)
    .option('--rekey-bytes <n>', 'how much one security association carries', bytes)
    .option('--rekey-packets <n>', 'how many packets one security association carries', packets)
    .option('--address-cooldown-seconds <n>', 'how long an address rests between two pods', wholeNumber, 60)
    .option('--allow-key-export', 'let root read the tunnels’ keys (myelin debug keys): for debugging only', false)
    .addOption(new Option('--log-level <level>').choices(['trace', 'debug', 'info', 'warn', 'error']).default('info'))
    .allowExcessArguments(false)
    .action(action);
}
