import { type Answer, encode } from 'dns-packet';
import type { Config, Endpoint } from '../../src/datapath/layouts.ts';
import { putMatcher } from '../../src/datapath/names.ts';
import { Transaction } from '../../src/datapath/transaction.ts';
import type { IpAddress } from '../../src/model/address.ts';
import { buildMatcher, NameDfas, type StageSets } from '../../src/policy/names/matcher.ts';
import { udp } from '../support/packet.ts';
import { alice, identity, sets, world } from './cluster.ts';
import { type Addresses, type Family, into, type Outcome, outOf, TestNode } from './node.ts';

/** Of questions and their answers. */
export const ids = { a: 7, b: 8 };
export const question = (name: string, type: 'A' | 'AAAA' = 'A', id = ids.a) =>
  encode({ type: 'query', id, flags: 0x100, questions: [{ name, type }] });
export const answering = (
  name: string,
  answers: Answer[],
  change: { id?: number; flags?: number; type?: 'A' | 'AAAA' } = {},
) => {
  const { id = ids.a, flags = 0x180, type = 'A' } = change;
  return encode({ type: 'response', id, flags, questions: [{ name, type }], answers });
};
/** A record of an IPv4 address. */
export const a = (name: string, data = '203.0.113.5', ttl = 300): Answer => ({ name, type: 'A', ttl, data });

/** Patterns of the tests, in order: their numbers follow from it. */
export const patterns = ['api.example', '*.cdn.example', '**.wild.example'] as const;
export const numberOf = (at: number) => identity(0xf0_0000 + at);

const nameSets = { strict: 50, asked: 51, lenient: 52 } as const;
const port53 = { port: 53, portLength: 16 } as const;

export interface NameOptions {
  /** Which names may be asked; undefined: every packet to port 53 is allowed. */
  readonly asked?: readonly string[];
  readonly maxEntries?: Readonly<Record<string, number>>;
  readonly learnt?: readonly string[];
}

/** A node with one pod, alice, that may reach port 443 of what it learns by name, and a DNS server in the world. */
export class NameNode {
  readonly node: TestNode;
  #source = 40_000;

  constructor({ asked, maxEntries, learnt = patterns }: NameOptions = {}) {
    this.node = new TestNode(maxEntries === undefined ? {} : { maxEntries });
    const byName = learnt.map((_, at) => ({
      identity: numberOf(at),
      protocol: 6,
      port: 443,
      portLength: 16,
      rule: 200 + at,
    }));
    const dns = [6, 17].map((protocol) => ({ protocol, ...port53, rule: 300 }));
    this.node.ruleSet(nameSets.strict, [...byName, ...(asked === undefined ? dns : [])], { isolated: true });
    this.node.ruleSet(nameSets.asked, [...byName, ...dns], { isolated: true });
    this.node.ruleSet(nameSets.lenient, [...byName, ...dns], { isolated: true });
    const stage = (network: number): StageSets => ({ admin: 0, network, mesh: 0 });
    const parts = buildMatcher(
      {
        learnt: new Map(learnt.map((pattern, at) => [pattern, numberOf(at)])),
        asked: (asked ?? []).map((pattern) => ({ pattern })),
        setsFor: (matched) => stage(matched.length > 0 ? nameSets.asked : nameSets.strict),
        strict: stage(nameSets.strict),
        lenient: stage(nameSets.lenient),
      },
      new NameDfas(),
    );
    const matcher = { id: 9, key: '', learns: true, asks: asked !== undefined, ...parts };
    putMatcher(this.node.maps, new Transaction(), matcher);
    this.place({ egressSet: nameSets.strict, names: matcher.id });
  }

  place(change: Partial<Endpoint>): void {
    this.node.addPod(alice, { egressSet: nameSets.strict, names: 9, ...change });
  }

  configure(change: Partial<Config>): void {
    this.node.configure(change);
  }

  /** Another port of the pod's: another connection. */
  newPort(): number {
    this.#source++;
    return this.#source;
  }

  ask(source: number, message: Uint8Array, family: Family = 4, to: Addresses = world): Outcome {
    return this.node.send(alice, outOf(alice, to, family, udp({ source, destination: 53, payload: message })));
  }

  answer(destination: number, message: Uint8Array, family: Family = 4, from: Addresses = world): Outcome {
    return this.node.receive(alice, into(alice, from, family, udp({ source: 53, destination, payload: message })), 0);
  }

  /** What alice knows by name: pattern positions by address. */
  learnt(): Map<IpAddress, number[]> {
    return new Map(
      [...this.node.maps.names.entries()]
        .filter(([{ endpoint }]) => endpoint === alice.id)
        .map(([{ address }, value]) => [
          address,
          value.patterns
            .filter((number) => number !== 0)
            .map((number) => number - numberOf(0))
            .sort(),
        ]),
    );
  }

  forget(): void {
    for (const [key] of [...this.node.maps.names.entries()]) this.node.maps.names.delete(key);
  }

  [Symbol.dispose](): void {
    this.node.close();
  }
}

export const openSet = sets.open;
