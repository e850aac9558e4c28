import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type HttpMaps, HttpTables } from '../../src/datapath/http/tables.ts';
import * as layouts from '../../src/datapath/layouts.ts';
import { placeValue, prefixKeyOf } from '../../src/datapath/places.ts';
import { TypedMap } from '../../src/datapath/typed-map.ts';
import { BpfObject, type LoadedObject } from '../../src/kernel/bpf/object.ts';
import { raw, someAddr, struct, u8, u16, u32, type Value } from '../../src/kernel/bpf/struct.ts';
import type { IpAddress } from '../../src/model/address.ts';
import type { Prefix } from '../../src/model/prefix.ts';
import type { Direction } from '../../src/model/verdict.ts';
import { bitWords } from '../../src/policy/http/bits.ts';
import { runMatcher } from '../../src/policy/http/run.ts';
import {
  type EndpointEntry,
  noSet,
  type PeerEntry,
  type PolicyImage,
  type PrefixEntry,
  setIdOf,
  verdictCodes,
} from '../../src/policy/image.ts';
import type { HttpRequest } from '../../src/policy/request.ts';
import { compileBpf } from '../kernel/compile.ts';
import { roomForRequests } from './maps.ts';

/**
 * bpf/lib/policy.h and bpf/lib/peer.h, asked directly and by the hundred: what one run of a whole program costs would
 * not let a hundred thousand flows through in a test. The programs themselves are asked in agreement.program.test.ts.
 */

const batch = 256;
const headers = join(import.meta.dirname, '../../bpf');
const source = `
#include "lib/policy.h"
#include "lib/peer.h"
struct question {
	struct addr remote;
	__u32 admin_set, network_set, mesh_set;
	__u16 port;
	__u8 protocol, request;
	__u32 identity, reason, rule, flags, lenient;
	struct http_bits bits[3];
};
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, ${batch}); __type(key, __u32); __type(value, struct question); }
	questions SEC(".maps");
SEC("tc") int ask(struct __sk_buff *skb)
{
	for (__u32 i = 0; i < ${batch}; i++) {
		__u32 key = i;
		struct question *one = bpf_map_lookup_elem(&questions, &key);
		struct policy_query query = {};
		struct peer peer = {};
		if (!one || i >= skb->mark)
			break;
		peer_find(&one->remote, &peer);
		query.admin_set = one->admin_set;
		query.network_set = one->network_set;
		query.mesh_set = one->mesh_set;
		query.identity = peer.identity;
		query.port = one->port;
		query.protocol = one->protocol;
		query.request = REQUEST_LENIENT;
		one->lenient = policy_decide(&query);
		for (__u32 stage = 0; stage < 3; stage++) {
			__u32 index = stage;
			struct http_bits *bits = bpf_map_lookup_elem(&http_bits, &index);

			if (bits)
				*bits = one->bits[stage];
		}
		query.request = one->request;
		one->reason = policy_decide(&query);
		one->identity = peer.identity;
		one->rule = query.rule;
		one->flags = query.flags;
	}
	return 0;
}
`;

const question = struct('question', {
  remote: someAddr,
  adminSet: u32,
  networkSet: u32,
  meshSet: u32,
  port: u16,
  protocol: u8,
  request: u8,
  identity: u32,
  reason: u32,
  rule: u32,
  flags: u32,
  lenient: u32,
  bits: raw('{bits@0:u64[16]}[3]', 384, 8),
});
/** `lenient`: the reason that it would be if the request were all that is allowed and nothing that is denied. */
export type Answer = Pick<Value<typeof question>, 'identity' | 'reason' | 'rule' | 'flags' | 'lenient'>;

export interface Question {
  readonly endpoint: EndpointEntry;
  readonly direction: Direction;
  readonly remote: IpAddress;
  readonly protocol: number;
  /** As `ResolvedFlow.port`. */
  readonly port: number;
  /** Ingress over TCP. */
  readonly request?: HttpRequest;
}

/** `enum policy_request`. */
const requestModes = { strict: 0, read: 2 } as const;

/** The datapath's decision with maps of its own. */
export class Questioner {
  readonly #object: LoadedObject;
  readonly #peers: TypedMap<IpAddress, layouts.Peer>;
  readonly #prefixes: TypedMap<layouts.PrefixKey, layouts.Peer>;
  readonly #sets: TypedMap<number, layouts.RuleSetValue>;
  readonly #policy: TypedMap<layouts.PolicyKey, layouts.PolicyValue>;
  readonly #questions: TypedMap<number, Value<typeof question>>;
  #image: { peers: PolicyImage['peers']; prefixes: PolicyImage['prefixes'] } = {
    peers: new Map(),
    prefixes: new Map(),
  };
  /** Each image's sets have numbers of their own, so that nothing has to be removed between images. */
  #firstSet = 0;
  readonly #httpMaps: HttpMaps;
  #http: HttpTables;
  #ruleSets: PolicyImage['ruleSets'] = new Map();
  #nextSet = 1;
  #entries = 0;

  constructor() {
    this.#object = BpfObject.open(compileBpf(source, `-I${headers}`)).load({
      maxEntries: {
        ct: 64,
        service_flows: 64,
        fragments: 64,
        denials: 64,
        peers: 1024,
        backends: 64,
        rule_sets: 65_536,
        policy: 262_144,
        ...roomForRequests,
      },
    });
    const map = (name: string) => this.#object.map(name);
    this.#peers = new TypedMap(map('peers'), layouts.address, layouts.peer);
    this.#prefixes = new TypedMap(map('prefixes'), layouts.prefixKey, layouts.peer);
    this.#sets = new TypedMap(map('rule_sets'), layouts.number32, layouts.ruleSet);
    this.#policy = new TypedMap(map('policy'), layouts.policyKey, layouts.policyEntry);
    this.#questions = new TypedMap(map('questions'), layouts.number32, question);
    this.#httpMaps = {
      httpCells: new TypedMap(map('http_cells'), layouts.number32, layouts.httpBits),
      httpMatchers: new TypedMap(map('http_matchers'), layouts.number32, layouts.httpMatcher),
      httpAlternatives: new TypedMap(map('http_alternatives'), layouts.number32, layouts.httpAlternative),
      httpRows: new TypedMap(map('http_rows'), layouts.number32, layouts.httpRow),
      httpAccepts: new TypedMap(map('http_accepts'), layouts.number32, layouts.httpBits),
      ruleSets: this.#sets,
      policy: this.#policy,
    };
    this.#http = new HttpTables(this.#httpMaps);
  }

  /** Puts an image in the place of the one before. */
  install(image: PolicyImage): void {
    const count = [...image.ruleSets.values()].reduce((sum, { entries }) => sum + entries.length, 0);
    if (this.#entries + count > this.#policy.capacity || this.#nextSet > this.#sets.capacity / 2) this.#forget();
    this.#entries += count;
    this.#replacePlaces(image);
    this.#firstSet = this.#nextSet;
    this.#ruleSets = image.ruleSets;
    // Only this image's tables: what was there before is looked at by nobody.
    this.#http.keepOnly(new Map());
    for (const one of image.ruleSets.values()) {
      const { id, probes, flags, rule, entries } = one;
      const set = this.#firstSet + id;
      this.#nextSet = Math.max(this.#nextSet, set + 1);
      this.#http.prepare([{ ...one, id: set }], entries);
      this.#sets.set(set, { probes, flags, rule, matcher: this.#http.matcherOf(set) });
      const { error } = this.#policy.setMany(
        entries.map((entry) => {
          const { identity, port, protocol, portLength, verdict, precedence, rule: number, flags: options } = entry;
          return [
            { set, identity, port, protocol, portLength },
            {
              precedence,
              rule: number,
              flags: options,
              verdict: verdictCodes[verdict],
              cell: this.#http.cellOf(entry),
            },
          ] as const;
        }),
      );
      assert.equal(error, undefined);
    }
  }

  /** What the installed image's maps say of each. */
  ask(questions: readonly Question[]): Answer[] {
    const answers: Answer[] = [];
    for (let at = 0; at < questions.length; at += batch) {
      const some = questions.slice(at, at + batch);
      this.#questions.setMany(some.map((one, i) => [i, this.#encode(one)]));
      this.#object.program('ask').testRun({ data: new Uint8Array(64), ctx: { mark: some.length } });
      const said = new Map(this.#questions.entries());
      answers.push(...some.map((_, i) => said.get(i) ?? assert.fail('the array has all answers')));
    }
    return answers;
  }

  [Symbol.dispose](): void {
    this.#object.close();
  }

  #encode({ endpoint, direction, remote, protocol, port, request }: Question): Value<typeof question> {
    const set = (stage: 'admin' | 'network' | 'mesh') => {
      const id = setIdOf(endpoint, direction, stage);
      return id === noSet ? noSet : this.#firstSet + id;
    };
    const sets = { adminSet: set('admin'), networkSet: set('network'), meshSet: set('mesh') };
    const bits = new Uint32Array(3 * bitWords);
    for (const [i, stage] of (['admin', 'network', 'mesh'] as const).entries()) {
      const matcher = this.#ruleSets.get(setIdOf(endpoint, direction, stage))?.matcher;
      if (request !== undefined && matcher !== undefined) bits.set(runMatcher(matcher.tables, request), i * bitWords);
    }
    const mode = request === undefined ? requestModes.strict : requestModes.read;
    const answer = { identity: 0, reason: 255, rule: 0, flags: 0, lenient: 255 };
    return { remote, ...sets, port, protocol, request: mode, ...answer, bits: new Uint8Array(bits.buffer) };
  }

  #replacePlaces({ peers, prefixes }: PolicyImage): void {
    replace(this.#image.peers, peers, {
      put: (address, entry: PeerEntry) => this.#peers.set(address, placeValue(entry)),
      remove: (address) => this.#peers.delete(address),
    });
    replace(this.#image.prefixes, prefixes, {
      put: (prefix: Prefix, entry: PrefixEntry) => this.#prefixes.set(prefixKeyOf(prefix), placeValue(entry)),
      remove: (prefix) => this.#prefixes.delete(prefixKeyOf(prefix)),
    });
    this.#image = { peers, prefixes };
  }

  #forget(): void {
    for (const [key] of [...this.#policy.entries()]) this.#policy.delete(key);
    for (const [key] of [...this.#sets.entries()]) this.#sets.delete(key);
    this.#entries = 0;
    this.#nextSet = 1;
  }
}

function replace<K, V>(
  old: ReadonlyMap<K, V>,
  next: ReadonlyMap<K, V>,
  { put, remove }: { put: (key: K, value: V) => void; remove: (key: K) => void },
): void {
  for (const key of old.keys()) if (!next.has(key)) remove(key);
  for (const [key, value] of next) put(key, value);
}
