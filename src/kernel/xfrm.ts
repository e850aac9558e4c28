import { readFileSync } from 'node:fs';
import { NetlinkEvents, type NetlinkMessage, NetlinkSocket, netlinkFlags } from './netlink.ts';
import type { XfrmExpiry, XfrmPolicy, XfrmPolicyId, XfrmState, XfrmStateId, XfrmStateInfo } from './xfrm-layout.ts';
import * as layout from './xfrm-layout.ts';

/**
 * The kernel's own ESP: security associations and policies over NETLINK_XFRM. Keys travel in the message only, never
 * over a command line.
 */

const NETLINK_XFRM = 6;
const message = {
  newSa: 0x10,
  deleteSa: 0x11,
  getSa: 0x12,
  newPolicy: 0x13,
  deletePolicy: 0x14,
  getPolicy: 0x15,
  expire: 0x18,
  updatePolicy: 0x19,
  getEvent: 0x1f,
} as const;
/** XFRMNLGRP_EXPIRE is group 2. */
const expireGroup = 1 << 1;
const none = Buffer.alloc(0);

/** The xfrm database of this process's network namespace. All methods throw KernelError `Errno`. */
export class Xfrm {
  readonly #socket = new NetlinkSocket(NETLINK_XFRM);

  /** @throws {KernelError} `Errno` (EEXIST; EPROTONOSUPPORT or ENOSYS where the kernel has no ESP) */
  addState(state: XfrmState): void {
    const payload = layout.encodeState(state);
    try {
      const flags = netlinkFlags.ack | netlinkFlags.create | netlinkFlags.exclusive;
      this.#socket.request(message.newSa, flags, payload, 'add the security association', layout.nameOf(state));
    } finally {
      payload.fill(0);
    }
  }

  /** @throws {KernelError} `Errno` (ESRCH) */
  deleteState(id: XfrmStateId): void {
    const operation = 'delete the security association';
    this.#socket.request(message.deleteSa, netlinkFlags.ack, layout.encodeStateId(id), operation, layout.nameOf(id));
  }

  /** What a state has carried so far. @throws {KernelError} `Errno` (ESRCH) */
  usage(id: XfrmStateId): { readonly bytes: number; readonly packets: number } {
    // Not GETSA, which answers with the key.
    const operation = 'read the usage of the security association';
    const [answer] = this.#socket.request(message.getEvent, 0, layout.encodeEventId(id), operation, layout.nameOf(id));
    return answer === undefined ? { bytes: 0, packets: 0 } : layout.decodeUsage(answer.payload);
  }

  states(): XfrmStateInfo[] {
    return this.#socket
      .request(message.getSa, netlinkFlags.dump, none, 'list security associations', 'xfrm')
      .filter(({ type }) => type === message.newSa)
      .map(({ payload }) => {
        const info = layout.decodeState(payload);
        // The kernel lists keys to whoever may list at all.
        payload.fill(0);
        return info;
      });
  }

  /** Replaces the policy of the same selector, direction and interface. */
  setPolicy(policy: XfrmPolicy): void {
    const object = layout.nameOfPolicy(policy);
    this.#socket.request(message.updatePolicy, netlinkFlags.ack, layout.encodePolicy(policy), 'set the policy', object);
  }

  /** @throws {KernelError} `Errno` (ENOENT) */
  deletePolicy(id: XfrmPolicyId): void {
    const object = layout.nameOfPolicy(id);
    this.#socket.request(
      message.deletePolicy,
      netlinkFlags.ack,
      layout.encodePolicyId(id),
      'delete the policy',
      object,
    );
  }

  policies(): XfrmPolicyId[] {
    return this.#socket
      .request(message.getPolicy, netlinkFlags.dump, none, 'list policies', 'xfrm')
      .filter(({ type }) => type === message.newPolicy)
      .flatMap(({ payload }) => layout.decodePolicyId(payload) ?? []);
  }

  close(): void {
    this.#socket.close();
  }
}

/** Tells of states that reach their limits, from now on. */
export class XfrmExpiries {
  readonly #events: NetlinkEvents;

  /** @param onLoss Some may have been missed. @throws {KernelError} `Errno` */
  constructor(onExpiry: (expiry: XfrmExpiry) => void, onLoss: () => void) {
    const onMessage = ({ type, payload }: NetlinkMessage) => {
      if (type === message.expire) onExpiry(layout.decodeExpiry(payload));
    };
    this.#events = new NetlinkEvents(NETLINK_XFRM, expireGroup, { onMessage, onLoss });
  }

  close(): void {
    this.#events.close();
  }
}

/** What the kernel's IPsec counted in this process's network namespace, by the names of /proc/net/xfrm_stat. */
export function xfrmCounters(): Readonly<Record<string, number>> {
  let text: string;
  try {
    text = readFileSync('/proc/net/xfrm_stat', 'utf8');
  } catch {
    // A kernel without CONFIG_XFRM_STATISTICS.
    return {};
  }
  const lines = text.trim().split('\n');
  return Object.fromEntries(lines.map((line) => line.split(/\s+/)).map(([key = '', value]) => [key, Number(value)]));
}
