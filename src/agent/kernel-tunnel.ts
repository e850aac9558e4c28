import { run } from '../kernel/command.ts';
import { KernelError } from '../kernel/error.ts';
import { deviceIndex } from '../kernel/ffi/libc.ts';
import { findLink, ip, ipBatch } from '../kernel/ip.ts';
import { probeXfrm } from '../kernel/probe.ts';
import { Xfrm } from '../kernel/xfrm.ts';
import { ignoreMissing } from '../tunnel/xfrm/sending.ts';

/** The xfrm device that the kernel's tunnels begin and end at. */
export const carrierDevice = 'myelin-x';
/** Tells our associations and policies from others of the node: `if_id` of the device. */
export const interfaceId = 0x4d59;
/** Routing table for what is put into the device. */
const table = 0x4d59;
const rule = ['oif', carrierDevice, 'lookup', String(table), 'priority', '100'];

/**
 * Makes the device, or takes over the one that an earlier agent made: its index must not change while the datapath's
 * paths lead to it.
 * @param options.mtu Of the pods' devices.
 * @returns Its index.
 * @throws {KernelError} `Missing` where the kernel has no ESP or no such devices; `Command`
 */
export async function makeCarrier(options: { readonly uplink: string; readonly mtu: number }): Promise<number> {
  const { uplink, mtu } = options;
  if ((await findLink(carrierDevice)) === undefined) {
    const missing = await probeXfrm();
    if (missing !== '')
      throw new KernelError('Missing', missing, { operation: 'make the device', object: carrierDevice });
    await ipBatch([`link add ${carrierDevice} type xfrm dev ${uplink} if_id ${interfaceId}`]);
  }
  await ipBatch([
    `link set dev ${carrierDevice} mtu ${mtu} addrgenmode none`,
    `link set dev ${carrierDevice} up`,
    // The device looks up a route for what is put into it, and for IPv6 there has to be one. It is nobody else's: what the
    // node itself sends to pods of other nodes does not come this way.
    `route replace ::/0 dev ${carrierDevice} table ${table}`,
  ]);
  const rules = await ip(['-6', 'rule', 'show', 'oif', carrierDevice]);
  if (!Array.isArray(rules) || rules.length === 0) await run('ip', ['-6', 'rule', 'add', ...rule]);
  return deviceIndex(carrierDevice);
}

/** Removes what an agent with the kernel's tunnels left, keys first; nothing where none ran here. */
export async function removeCarrier(): Promise<void> {
  if ((await findLink(carrierDevice)) === undefined) return;
  const xfrm = new Xfrm();
  try {
    for (const state of xfrm.states())
      if (state.interfaceId === interfaceId) ignoreMissing(() => xfrm.deleteState(state));
    for (const policy of xfrm.policies())
      if (policy.interfaceId === interfaceId) ignoreMissing(() => xfrm.deletePolicy(policy));
  } finally {
    xfrm.close();
  }
  await run('ip', ['-6', 'rule', 'del', ...rule]).catch(() => undefined);
  await ipBatch([`link del dev ${carrierDevice}`]);
}
