/** The transport protocols that rules and flows name. Everything else is `other` and is never allowed by a port rule. */
export const protocolNumbers = { ICMP: 1, TCP: 6, UDP: 17, ICMPv6: 58, SCTP: 132 } as const;
export type Protocol = keyof typeof protocolNumbers;

/** In the place of a port: what an ICMP message is, its type in the upper eight bits of 16 and its code in the lower. */
export function icmpPort(type: number, code = 0): number {
  return (type << 8) | code;
}

/** The only ICMP messages that open anything: whatever else there is answers, or is about something else. */
export const echoRequests = { ICMP: icmpPort(8), ICMPv6: icmpPort(128) } as const;

/** An inclusive range of ports; `from` = 0, `to` = 65535 is every port. */
export interface PortRange {
  readonly from: number;
  readonly to: number;
}

export const everyPort: PortRange = { from: 0, to: 65535 };

/** A block of ports that share their first `length` bits: what one policy entry matches. */
export interface PortPrefix {
  readonly port: number;
  readonly length: number;
}

export function protocolFromNumber(number: number): Protocol | undefined {
  for (const [name, value] of Object.entries(protocolNumbers)) if (value === number) return name as Protocol;
  return undefined;
}

/** Whether the protocol has ports at all. */
export function hasPorts(protocol: Protocol): boolean {
  return protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP';
}

/** The fewest aligned blocks that together are exactly `range`: at most 30. */
export function portPrefixes(range: PortRange): PortPrefix[] {
  const blocks: PortPrefix[] = [];
  let port = range.from;
  while (port <= range.to) {
    let length = 16;
    while (length > 0) {
      const size = 1 << (17 - length);
      if (port % size !== 0 || port + size - 1 > range.to) break;
      length--;
    }
    blocks.push({ port, length });
    port += 1 << (16 - length);
  }
  return blocks;
}
