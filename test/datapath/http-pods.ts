import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Datapath } from '../../src/datapath/datapath.ts';
import type { DatapathEvent } from '../../src/datapath/events.ts';
import { removePinDirectory } from '../../src/kernel/bpffs.ts';
import { findLink, ipBatch } from '../../src/kernel/ip.ts';
import { createNamespace, deleteNamespace, listNamespaces } from '../../src/kernel/netns.ts';
import { parseIp, parseMac } from '../../src/model/address.ts';
import type { DropReason } from '../../src/model/verdict.ts';
import { compile } from '../../src/policy/compile.ts';
import { policyKindOf } from '../../src/policy/kinds.ts';
import { clusterWith, pod } from '../support/cluster.ts';
import type { Heard, Talk } from '../support/http-program.ts';
import { HttpServer, HttpTalker } from '../support/http-talk.ts';
import { objectDir } from './maps.ts';

const node = 'node-1';
const names = ['front', 'cart'] as const;
const addressOf = { front: '10.244.1.1', cart: '10.244.1.2' } as const;
const port = 8000;
const to = { host: addressOf.cart, port };

const pods = new Map(
  names.map((name) => [name, pod(`shop/${name}`, { app: name }, node, [addressOf[name]], { uid: name })]),
);

/** A policy's own: its name, and what is annotated. */
export interface Said {
  readonly name?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** What `front` may ask of `cart`: some requests. */
export const asking = (...http: readonly object[]): object => ({ rules: { http } });

/** A policy by which `front` may ask `cart` for this only, by default for whatever it likes. */
export function policy(asked: object = {}, { name = 'cart', annotations = {} }: Said = {}): object {
  return {
    apiVersion: 'cilium.io/v2',
    kind: 'CiliumNetworkPolicy',
    metadata: { name, namespace: 'shop', annotations },
    spec: {
      endpointSelector: { matchLabels: { app: 'cart' } },
      ingress: [
        {
          fromEndpoints: [{ matchLabels: { app: 'front' } }],
          toPorts: [{ ports: [{ port: String(port), protocol: 'TCP' }], ...asked }],
        },
      ],
    },
  };
}

/** One node with two pods on real links, without agent or lab: `front` talks HTTP to a server in `cart`. */
export class HttpPods {
  readonly events: DatapathEvent[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), 'myelin-http-'));
  readonly #pinDir = `/sys/fs/bpf/myelin-test-http-${process.pid}`;
  #datapath: Datapath | undefined;
  #server: HttpServer | undefined;
  #talker: HttpTalker | undefined;

  /**
   * In the caller's namespace, which is its own. Fails where this machine cannot read requests.
   * @param maxEntries Capacities of maps, by name.
   */
  async start(maxEntries: Readonly<Record<string, number>> = {}): Promise<void> {
    this.#datapath = Datapath.open(
      { objectDir, pinDir: this.#pinDir, maxEntries: { ct: 4096, service_flows: 1024, ...maxEntries } },
      { onEvent: (event) => this.events.push(event) },
    );
    assert.equal(this.datapath.httpUnavailable, undefined);
    for (const [i, name] of names.entries()) await this.#addPod(name, `02:00:00:00:01:0${i}`);
    await this.enforce(policy());
    const places = {
      command: async (where: unknown, command: readonly string[]) => [
        'nsenter',
        `--net=${this.#netns(String(where))}`,
        ...command,
      ],
    };
    this.#server = await HttpServer.start(places, 'cart', port);
    this.#talker = await HttpTalker.start(places, 'front');
  }

  async #addPod(name: (typeof names)[number], mac: string): Promise<void> {
    const netns = this.#netns(name);
    await createNamespace(netns);
    await ipBatch([
      `link add ${name} type veth peer name eth0 address ${mac} netns ${netns}`,
      `link set ${name} up`,
      `addr add 169.254.1.1/32 dev ${name} scope link`,
      `route add ${addressOf[name]}/32 dev ${name}`,
    ]);
    const link = await findLink(name);
    assert.ok(link !== undefined);
    await ipBatch(
      [
        'link set eth0 up',
        `addr add ${addressOf[name]}/32 dev eth0`,
        'route add 169.254.1.1 dev eth0 scope link',
        'route add default via 169.254.1.1',
        `neigh add 169.254.1.1 dev eth0 lladdr ${link.mac} nud permanent`,
      ],
      { netns },
    );
    this.datapath.setEndpoint({
      uid: name,
      ifindex: link.ifindex,
      mac: parseMac(mac),
      hostMac: parseMac(link.mac),
      addresses: [parseIp(addressOf[name])],
      netns,
    });
  }

  #netns(name: string): string {
    return join(this.#directory, name);
  }

  get datapath(): Datapath {
    return this.#datapath ?? assert.fail('it is not started');
  }

  get server(): HttpServer {
    return this.#server ?? assert.fail('it is not started');
  }

  /** Puts these policies in force, and no others. */
  async enforce(...objects: readonly object[]): Promise<void> {
    const policies = objects.flatMap((object) => {
      const parsed = policyKindOf(object)?.parse(object);
      return parsed?.ok === true ? parsed.policies : assert.fail(JSON.stringify(parsed));
    });
    await this.datapath.applyPolicy(compile(clusterWith(policies, { pods }), node, this.datapath.policy));
  }

  /** Says something on a connection that stays, and waits for so many answers. */
  say(name: string, parts: readonly string[], answers = 1): Promise<Heard> {
    return this.talk({ name, parts, answers });
  }

  talk(talk: Partial<Talk> & Pick<Talk, 'parts'>): Promise<Heard> {
    assert.ok(this.#talker !== undefined);
    return this.#talker.say({ ...to, patience: 20_000, ...talk });
  }

  /** Waits for a line of the server's. */
  async serverSays(line: string): Promise<void> {
    const end = Date.now() + 20_000;
    for (const seen: string[] = []; !seen.includes(line); await sleep(5)) {
      assert.ok(Date.now() < end, `the server never says “${line}”`);
      seen.push(...this.server.take());
    }
  }

  /** How many packets were dropped for a reason, or requests refused. */
  dropped(reason: DropReason): number {
    return this.datapath.metrics().drops.reduce((sum, drop) => sum + (drop.reason === reason ? drop.packets : 0), 0);
  }

  async close(): Promise<void> {
    this.#talker?.close();
    this.#server?.close();
    await this.#datapath?.close();
    for (const path of listNamespaces(this.#directory)) deleteNamespace(path);
    rmSync(this.#directory, { recursive: true, force: true });
    removePinDirectory(this.#pinDir);
  }
}

/** The text of a request. */
export const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: cart.shop.example\r\n\r\n`;
