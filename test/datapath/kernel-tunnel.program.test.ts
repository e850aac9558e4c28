import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as layouts from '../../src/datapath/layouts.ts';
import { parseMac } from '../../src/model/address.ts';
import { frame, ip, tcp } from '../support/packet.ts';
import { alice, bob, otherNode, remote, world } from './cluster.ts';
import { addressOf, families, TestNode } from './node.ts';

/** Tunnels that the kernel carries: where packets go in, who may give packets back, what has to come with those out of one. */

const open = tcp({ source: 40000, destination: 80 });
const link = { source: parseMac('02:00:00:00:ff:01'), destination: parseMac('02:00:00:00:ff:02') };
const xfrm = { flags: layouts.configFlags.xfrm };
const noDevice = 0x7fff_fff0;

for (const family of families) {
  const at = (who: Parameters<typeof addressOf>[0]) => addressOf(who, family);
  const wire = (from: Parameters<typeof addressOf>[0], to: Parameters<typeof addressOf>[0]) =>
    frame(link, ip({ source: at(from), destination: at(to) }, open));

  describe(`the kernel's tunnels, IPv${family}`, () => {
    test('a packet out of one needs the kernel’s word for the association, which a proven pair alone is not', () => {
      using node = new TestNode();
      node.maps.tunnels.set(
        { local: at(alice), remote: at(remote) },
        { identity: remote.identity, spi: 7, previousSpi: 6 },
      );
      assert.equal(node.runTunnel(wire(remote, alice)).action, 'redirect');
      node.configure(xfrm);
      assert.equal(node.runTunnel(wire(remote, alice)).reason, 'TUNNEL_SELECTOR');
    });

    test('what was held goes on once its pair has a path', () => {
      using node = new TestNode();
      node.configure(xfrm);
      assert.equal(node.runHolder(wire(alice, remote)).reason, 'TUNNEL_SELECTOR');
      node.maps.tunnelPaths.set({ local: at(alice), remote: at(remote) }, noDevice);
      const outcome = node.runHolder(wire(alice, remote));
      assert.equal(outcome.action, 'redirect');
      assert.equal(outcome.mark, 0);
      assert.equal(node.runHolder(wire(bob, remote)).reason, 'TUNNEL_SELECTOR');
      node.maps.tunnelPaths.delete({ local: at(alice), remote: at(remote) });
      assert.equal(node.runHolder(wire(alice, remote)).reason, 'TUNNEL_SELECTOR');
    });

    test('whoever writes to the holding device speaks for no other than this node’s pods', () => {
      using node = new TestNode();
      node.configure(xfrm);
      for (const stranger of [remote, world, otherNode]) {
        node.maps.tunnelPaths.set({ local: at(stranger), remote: at(remote) }, noDevice);
        assert.equal(node.runHolder(wire(stranger, remote)).reason, 'TUNNEL_SELECTOR');
      }
      // And reaches no pod of this node by it.
      node.maps.tunnels.set(
        { local: at(alice), remote: at(remote) },
        { identity: remote.identity, spi: 7, previousSpi: 6 },
      );
      assert.equal(node.runHolder(wire(remote, alice)).reason, 'TUNNEL_SELECTOR');
    });

    test('while tunnels go over, what the engine opened is let in beside the kernel’s, as a proven pair only', () => {
      using node = new TestNode();
      node.configure({ flags: layouts.configFlags.xfrm | layouts.configFlags.changing });
      assert.equal(node.runHolder(wire(remote, alice)).reason, 'TUNNEL_SELECTOR');
      node.maps.tunnels.set(
        { local: at(alice), remote: at(remote) },
        { identity: remote.identity, spi: 7, previousSpi: 6 },
      );
      const opened = node.runHolder(wire(remote, alice));
      assert.deepEqual([opened.action, opened.mark], ['redirect', 0x4d00_0000 | remote.identity]);
      assert.equal(node.runHolder(wire(remote, bob)).reason, 'TUNNEL_SELECTOR');
      assert.equal(node.runHolder(wire(remote, otherNode)).reason, 'TUNNEL_TO_NODE');
      // Out of the kernel's device only with the kernel's word; what was held goes on as before.
      assert.equal(node.runTunnel(wire(remote, alice)).reason, 'TUNNEL_SELECTOR');
      node.maps.tunnelPaths.set({ local: at(alice), remote: at(remote) }, noDevice);
      const held = node.runHolder(wire(alice, remote));
      assert.deepEqual([held.action, held.mark], ['redirect', 0]);
    });

    test('without the kernel’s tunnels nothing is given back', () => {
      using node = new TestNode();
      node.maps.tunnelPaths.set({ local: at(alice), remote: at(remote) }, noDevice);
      assert.equal(node.runHolder(wire(alice, remote)).reason, 'TUNNEL_SELECTOR');
    });
  });
}
