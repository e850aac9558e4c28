import { z } from 'zod';
import type { IcmpMatch } from '../rule.ts';

/** Names of message types, as Cilium's API has them (IANA's, without spaces). */
const types4: Readonly<Record<string, number>> = {
  EchoReply: 0,
  DestinationUnreachable: 3,
  Redirect: 5,
  Echo: 8,
  EchoRequest: 8,
  RouterAdvertisement: 9,
  RouterSelection: 10,
  TimeExceeded: 11,
  ParameterProblem: 12,
  Timestamp: 13,
  TimestampReply: 14,
  Photuris: 40,
  ExtendedEchoRequest: 42,
  ExtendedEchoReply: 43,
};
const types6: Readonly<Record<string, number>> = {
  DestinationUnreachable: 1,
  PacketTooBig: 2,
  TimeExceeded: 3,
  ParameterProblem: 4,
  EchoRequest: 128,
  EchoReply: 129,
  MulticastListenerQuery: 130,
  MulticastListenerReport: 131,
  MulticastListenerDone: 132,
  RouterSolicitation: 133,
  RouterAdvertisement: 134,
  NeighborSolicitation: 135,
  NeighborAdvertisement: 136,
  RedirectMessage: 137,
  RouterRenumbering: 138,
  ICMPNodeInformationQuery: 139,
  ICMPNodeInformationResponse: 140,
  InverseNeighborDiscoverySolicitation: 141,
  InverseNeighborDiscoveryAdvertisement: 142,
  HomeAgentAddressDiscoveryRequest: 144,
  HomeAgentAddressDiscoveryReply: 145,
  MobilePrefixSolicitation: 146,
  MobilePrefixAdvertisement: 147,
  DuplicateAddressRequestCodeSuffix: 157,
  DuplicateAddressConfirmationCodeSuffix: 158,
  ExtendedEchoRequest: 160,
  ExtendedEchoReply: 161,
};

function typeOf(family: string, type: string | number): number | undefined {
  const names = family === 'IPv6' ? types6 : types4;
  if (typeof type === 'string' && Object.hasOwn(names, type)) return names[type];
  if (typeof type === 'string' && !/^(0|[1-9][0-9]{0,2})$/.test(type)) return undefined;
  const number = Number(type);
  return Number.isInteger(number) && number >= 0 && number <= 255 ? number : undefined;
}

const field = z
  .strictObject({
    family: z.enum(['IPv4', 'IPv6', '']).nullish(),
    type: z.union([z.string(), z.number()], 'expected a message type, a number or a name'),
  })
  .transform(({ family, type }, context): IcmpMatch => {
    const number = typeOf(family ?? 'IPv4', type);
    if (number === undefined) {
      const message = `is no type of an ICMP message of ${family === 'IPv6' ? 'IPv6' : 'IPv4'}`;
      context.addIssue({ code: 'custom', message, path: ['type'] });
      return z.NEVER;
    }
    return { protocol: family === 'IPv6' ? 'ICMPv6' : 'ICMP', type: number };
  });

/** `icmps` of a rule: lists of message types, both families. */
export const icmpRules = z
  .array(z.strictObject({ fields: z.array(field).max(40, 'must have at most 40 entries').nullish() }))
  .nullish();
