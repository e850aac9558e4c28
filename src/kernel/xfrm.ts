import { readFileSync } from 'node:fs';
import { NetlinkEvents, type NetlinkMessage, NetlinkSocket, netlinkFlags } from './netlink.ts';
import type { XfrmExpiry, XfrmPolicy, XfrmPolicyId, XfrmState, XfrmStateId, XfrmStateInfo } from './xfrm-layout.ts';
import * as layout from './xfrm-layout.ts';
import * as moving from './xfrm-moving.ts';

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
  updateSa: 0x1a,
  getEvent: 0x1f,
  migrate: 0x21,
  mapping: 0x26,
} as const;
/** XFRMNLGRP_EXPIRE and XFRMNLGRP_MAPPING are groups 2 and 8. */
const eventGroups = (1 << 1) | (1 << 7);
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

  /**
   * Changes a state's ports and limits; its key, and where it is in its sequence, stay as they are (`xfrm_state_update` in
   * Linux). The kernel wants a key in the message, and does not look at it.
   * @throws {KernelError} `Errno` (ESRCH)
   */
  updateState(state: Omit<XfrmState, 'keyAndSalt'>): void {
    const payload = layout.encodeState({ ...state, keyAndSalt: Buffer.alloc(36) });
    const operation = 'update the security association';
    this.#socket.request(message.updateSa, netlinkFlags.ack, payload, operation, layout.nameOf(state));
  }

  /**
   * Gives an outbound state another destination: the kernel puts a copy with key, limits and sequence beside it and removes it
   * (`xfrm_migrate` in Linux). Policies that use it have to be set anew.
   * @throws {KernelError} `Errno` (ENOPROTOOPT where the kernel is built without; ESRCH, EEXIST)
   */
  moveState(move: moving.XfrmMove): void {
    const { source, destination, requestId, by } = move;
    this.setPolicy({ ...by, priority: 0, tunnel: { source, destination, requestId } });
    try {
      const operation = `move the security association to ${move.to}`;
      this.#socket.request(message.migrate, netlinkFlags.ack, moving.encodeMove(move), operation, layout.nameOf(move));
    } finally {
      this.deletePolicy(by);
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

/** Tells of states that reach their limits, and of peers that are elsewhere, from now on. */
export class XfrmEvents {
  readonly #events: NetlinkEvents;

  /** @param listener.onLoss Expiries may have been missed; a mapping is said again. @throws {KernelError} `Errno` */
  constructor(listener: {
    readonly onExpiry: (expiry: XfrmExpiry) => void;
    readonly onMapping: (mapping: moving.XfrmMapping) => void;
    readonly onLoss: () => void;
  }) {
    const onMessage = ({ type, payload }: NetlinkMessage) => {
      if (type === message.expire) listener.onExpiry(layout.decodeExpiry(payload));
      if (type === message.mapping) listener.onMapping(moving.decodeMapping(payload));
    };
    this.#events = new NetlinkEvents(NETLINK_XFRM, eventGroups, { onMessage, onLoss: listener.onLoss });
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
