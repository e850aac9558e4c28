import { createHash } from 'node:crypto';
import { type IpAddress, type MacAddress, macFromBytes } from '../model/address.ts';
import type { PodRef } from '../model/endpoint.ts';
import type { Attachment } from './cni/request.ts';

/** A pod's interface: everything that the node set up for one CNI attachment. */
export interface Endpoint extends Attachment {
  /** The network's name in the CNI configuration. */
  readonly network: string;
  /** The path that the runtime gave; it may be gone while the namespace lives. */
  readonly netns: string;
  /** Absent for a container that no Kubernetes runtime started: nothing can say who it is, so it stays denied. */
  readonly pod?: PodRef;
  /** At most one of each family, IPv4 first. */
  readonly addresses: readonly IpAddress[];
  /** Of the interface inside. */
  readonly mac: MacAddress;
  /** Of the host's side, which the pod knows its gateways by. */
  readonly hostMac: MacAddress;
  readonly hostInterface: string;
  /** The host side's index: the datapath's key. */
  readonly hostIndex: number;
  /** Of both ends. */
  readonly mtu: number;
  /** Unix milliseconds. */
  readonly createdAt: number;
}

/** The pod's gateways; every pod has the same ones, because they mean nothing outside its own veth pair. */
export const gateway4 = '169.254.1.1' as IpAddress;
export const gateway6 = 'fe80::1' as IpAddress;

const hostInterfaceGrammar = /^my[0-9a-f]{11}$/;

/** @returns The host side's name: 13 of the 15 characters that Linux allows. */
export function hostInterfaceOf(containerId: string): string {
  return `my${createHash('sha256').update(containerId).digest('hex').slice(0, 11)}`;
}

/** Whether a device's name is one that only Myelin gives. */
export function isHostInterface(name: string): boolean {
  return hostInterfaceGrammar.test(name);
}

/**
 * @returns A locally administered unicast address, the same every time: a repeated ADD finds neighbours' entries right.
 */
export function macOf(containerId: string, side: 'pod' | 'host'): MacAddress {
  const bytes = createHash('sha256').update(`${side}/${containerId}`).digest().subarray(0, 6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(bytes);
}

/** The name of an attachment in the books: the spec's identifying pair. Neither part can hold a slash. */
export function keyOf({ containerId, ifName }: Attachment): string {
  return `${containerId}/${ifName}`;
}
