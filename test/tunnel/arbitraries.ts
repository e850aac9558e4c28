import fc from 'fast-check';
import { type IpAddress, ipFromBytes } from '../../src/model/address.ts';

export const ip: fc.Arbitrary<IpAddress> = fc.oneof(
  fc.uint8Array({ minLength: 4, maxLength: 4 }).map(ipFromBytes),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map(ipFromBytes),
);
