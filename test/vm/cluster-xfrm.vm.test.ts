import { test } from 'node:test';
import { passInGuest } from './pass-in-guest.ts';

test('the xfrm driver keeps the contract of every driver', () => passInGuest('test/vm/guest/driver-xfrm.ts', 11, 600));

test('an uplink that says it seals ESP is asked to, and what the kernel does not give it is sealed here', () =>
  passInGuest('test/vm/guest/offload.ts', 2, 180));

test('a cluster whose nodes have the kernel’s tunnels, and one where only one node does', () =>
  passInGuest('test/vm/guest/lab-xfrm.ts', 4, 900));
