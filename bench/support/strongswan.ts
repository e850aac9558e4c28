import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/kernel/command.ts';
import { startDaemon, waitUntil } from './daemon.ts';
import type { Site } from './sites.ts';

/**
 * strongSwan with kernel-libipsec, its own userspace ESP, between two sites; each charon sees a private /run and
 * /etc/swanctl, because their places are fixed when it is built.
 * @param prefixes What each site protects.
 */
export async function openStrongswan(
  sites: readonly [Site, Site],
  prefixes: readonly [string, string],
): Promise<{ devices: [string, string]; close(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-strongswan-'));
  const settings = join(directory, 'strongswan.conf');
  writeFileSync(
    settings,
    `charon-systemd {
  load = random nonce openssl kdf kernel-libipsec kernel-netlink socket-default vici updown
  # The engine of the same node has 4500. Port 0 leaves only the one that always carries the non-ESP marker.
  port = 0
  port_nat_t = 14500
  plugins { kernel-libipsec { load = yes } }
}
swanctl { load = random openssl }
`,
  );
  const env = { STRONGSWAN_CONF: settings };
  const daemons = sites.map((site, i) => {
    const etc = join(directory, `etc-${i}`);
    const sockets = join(directory, `run-${i}`);
    mkdirSync(etc);
    mkdirSync(sockets);
    const peer = sites[1 - i];
    writeFileSync(
      join(etc, 'swanctl.conf'),
      `connections { pair {
  version = 2
  local_addrs = ${site.underlay}
  local_port = 14500
  remote_port = 14500
  remote_addrs = ${peer?.underlay}
  local { auth = psk
    id = ${site.underlay} }
  remote { auth = psk
    id = ${peer?.underlay} }
  children { net { local_ts = ${prefixes[i]}
    remote_ts = ${prefixes[1 - i]}
    esp_proposals = aes256gcm16 } }
} }
secrets { ike { secret = "bench-only" } }
`,
    );
    const inside = `mount --bind ${etc} /etc/swanctl && mount --bind ${sockets} /run && exec "$0"`;
    const daemon = startDaemon('unshare', ['--mount', 'sh', '-c', inside, '/usr/sbin/charon-systemd'], {
      netns: site.netns,
      env,
    });
    return { ...daemon, socket: `unix://${join(sockets, 'charon.vici')}`, etc, site };
  });
  const close = async () => {
    for (const daemon of daemons) await daemon.close();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    for (const { socket, etc, site } of daemons)
      await waitUntil('charon takes its configuration', 10, () =>
        run('swanctl', ['--load-all', '--file', join(etc, 'swanctl.conf'), '--uri', socket], {
          netns: site.netns,
        }).then(
          () => true,
          () => false,
        ),
      );
    const [first] = daemons;
    if (first === undefined) throw new Error('there are two sides');
    await run('swanctl', ['--initiate', '--child', 'net', '--uri', first.socket], { netns: first.site.netns, env });
  } catch (error) {
    const said = daemons.map((daemon) => daemon.output()).join('\n');
    await close();
    throw new Error(`strongSwan did not come up:\n${said.slice(-3000)}`, { cause: error });
  }
  return { devices: ['ipsec0', 'ipsec0'], close };
}
