import { test } from 'node:test';
import { passInGuest } from './pass-in-guest.ts';

test('a SYN through the kernel’s tunnels announces no larger segments than fit the underlay', () =>
  passInGuest('test/vm/guest/clamp-xfrm.ts', 2, 240));

test('the kernel’s tunnels follow a peer that a NAT moves', () => passInGuest('test/vm/guest/nat-xfrm.ts', 5, 300));
