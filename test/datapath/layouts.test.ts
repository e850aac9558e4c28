import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import * as layouts from '../../src/datapath/layouts.ts';
import { auditedSlot } from '../../src/datapath/metrics.ts';
import { objectFiles } from '../../src/datapath/objects.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { reservedIdentity } from '../../src/model/identity.ts';
import { dropReasons } from '../../src/model/verdict.ts';
import {
  anyProtocolProbe,
  optionFlags,
  peerKinds,
  reservedRules,
  ruleSetFlags,
  verdictCodes,
} from '../../src/policy/image.ts';
import { compileBpf } from '../kernel/compile.ts';
import { objectDir } from './maps.ts';

const objects = objectFiles.map((file) => BpfObject.open(join(objectDir, `${file}.bpf.o`)));

test('every layout is that of the object files, and each is in one of them', () => {
  for (const layout of layouts.structs) {
    const found = objects.flatMap(({ btf }) => btf.struct(layout.name) ?? []);
    assert.ok(found.length > 0, `struct ${layout.name} is in no object`);
    for (const actual of found) assert.deepEqual(layout.differences(actual), []);
  }
});

test('a map that several objects have is the same in all, so that any of them can make what the others share', () => {
  const definitions = new Map<string, object[]>();
  for (const { maps, btf } of [...objects, BpfObject.open(join(objectDir, 'http.bpf.o'))])
    for (const { internal, btfKeyType, btfValueType, ...map } of maps.values()) {
      if (internal) continue;
      const key = btfKeyType === 0 ? '' : btf.describe(btfKeyType);
      const value = btfValueType === 0 ? '' : btf.describe(btfValueType);
      definitions.set(map.name, [...(definitions.get(map.name) ?? []), { ...map, key, value }]);
    }
  assert.ok([...definitions.values()].filter(({ length }) => length > objects.length).length > 15);
  for (const [first, ...others] of definitions.values()) for (const other of others) assert.deepEqual(other, first);
});

const headers = join(import.meta.dirname, '../../bpf');

test('numbers mean the same on both sides', () => {
  const constants: Readonly<Record<string, number>> = {
    CONFIG_XFRM: layouts.configFlags.xfrm,
    CONFIG_PROXY_LEARN: layouts.configFlags.proxyLearn,
    CT_PROXIED: layouts.ctFlags.proxied,
    PROXY_ALWAYS: layouts.proxyModes.always,
    PROXY_NEVER: layouts.proxyModes.never,
    ENDPOINT_READY: layouts.endpointFlags.ready,
    ENDPOINT_AUDITED: layouts.endpointFlags.audited,
    EVENT_LOGGED: layouts.eventFlags.logged,
    AUDITED: auditedSlot,
    SERVICE_FLOW_HAIRPIN_REPLY: layouts.serviceFlowFlags.hairpinReply,
    PROBE_ANY_PROTOCOL: anyProtocolProbe,
    RULE_SET_ISOLATED: ruleSetFlags.isolated,
    HTTP_ALTERNATIVES: layouts.httpLimits.alternatives,
    HTTP_CLASSES: layouts.httpLimits.classes,
    HTTP_NAMES: layouts.httpLimits.names,
    VERDICT_ALLOW: verdictCodes.allow,
    VERDICT_DENY: verdictCodes.deny,
    VERDICT_PASS: verdictCodes.pass,
    VERDICT_PROXY: verdictCodes.proxy,
    POLICY_LOG: optionFlags.log,
    POLICY_REJECT: optionFlags.reject,
    POLICY_AUDIT: optionFlags.audit,
    POLICY_KEEP: optionFlags.keep,
    POLICY_RESET: optionFlags.reset,
    RULE_NONE: reservedRules.none,
    RULE_OWN_NODE: reservedRules.ownNode,
    RULE_SELF: reservedRules.self,
    RULE_DEFAULT_DENY: reservedRules.defaultDeny,
    IDENTITY_HOST: reservedIdentity.host,
    IDENTITY_WORLD: reservedIdentity.world,
    IDENTITY_REMOTE_NODE: reservedIdentity.remoteNode,
    PEER_LOCAL_POD: peerKinds['local-pod'],
    PEER_REMOTE_POD: peerKinds['remote-pod'],
    PEER_THIS_NODE: peerKinds['this-node'],
    PEER_OTHER_NODE: peerKinds['other-node'],
    PEER_POD_CIDR: peerKinds['unknown-pod'],
    PEER_WORLD: peerKinds.world,
    PEER_SERVICE_CIDR: peerKinds['unknown-service'],
    DIRECTION_EGRESS: layouts.directionCodes.egress,
    DIRECTION_INGRESS: layouts.directionCodes.ingress,
    CT_OPENING: layouts.ctStates.opening,
    CT_ESTABLISHED: layouts.ctStates.established,
    CT_HALF_CLOSED: layouts.ctStates.halfClosed,
    CT_CLOSED: layouts.ctStates.closed,
    ...Object.fromEntries(Object.entries(dropReasons).map(([name, { code }]) => [name, code])),
  };
  const checks = Object.entries(constants).map(([name, value]) => `_Static_assert(${name} == ${value}, "${name}");`);
  // The compiler refuses what differs.
  const { btf } = BpfObject.open(
    compileBpf(`#include "lib/policy.h"\n${checks.join('\n')}\nenum drop_reason reason;`, `-I${headers}`),
  );
  const reasons = btf.enumeration('drop_reason');
  assert.equal(reasons?.size, Object.keys(dropReasons).length + 1, 'all reasons, and FORWARDED');
});
