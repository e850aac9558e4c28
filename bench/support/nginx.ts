import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/kernel/command.ts';
import { type Daemon, startDaemon, waitUntil } from './daemon.ts';

/** An nginx with one worker that serves a page of a kilobyte at every path of port 80. */
export interface Nginx {
  close(): Promise<void>;
}

/**
 * @param netns Path of the namespace it listens in.
 * @param upstream It passes requests on to there, over connections that are kept, in place of serving them.
 */
export async function startNginx(netns: string, upstream?: string): Promise<Nginx> {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-nginx-'));
  mkdirSync(join(directory, 'www'));
  writeFileSync(join(directory, 'www/page.html'), 'x'.repeat(1024));
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${directory}/${name};`)
    .join(' ');
  const location =
    upstream === undefined
      ? `root ${directory}/www; try_files /page.html =404;`
      : 'proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";';
  const behind = upstream === undefined ? '' : `upstream behind { server ${upstream}; keepalive 64; }`;
  const file = join(directory, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; ${temporary} ${behind}
server { listen 80; listen [::]:80; location / { ${location} } } }
`,
  );
  await run('chmod', ['-R', 'a+rX', directory]);
  const daemon: Daemon = startDaemon('nginx', ['-c', file, '-e', 'stderr'], { netns });
  const close = async () => {
    await daemon.close();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await waitUntil('nginx listens', 10, async () => {
      const { stdout } = await run('ss', ['-Hltn', 'sport', '=', ':80'], { netns });
      return stdout !== '';
    });
  } catch (error) {
    await close();
    throw new Error(`nginx: ${daemon.output()}`, { cause: error });
  }
  return { close };
}

export interface WrkResult {
  /** Answers a second, whatever they said. */
  readonly rate: number;
  /** Milliseconds. */
  readonly p99: number;
  /** Answers of another status than 2xx and 3xx. */
  readonly refused: number;
  /** Connections that broke, and answers that did not come. */
  readonly errors: number;
}

const units: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 };

/** Fifty connections that ask again as soon as they are answered. */
export async function wrk(netns: string, url: string, seconds: number): Promise<WrkResult> {
  const { stdout } = await run('wrk', ['-t1', '-c50', `-d${seconds}s`, '--latency', url], {
    netns,
    timeout: (seconds + 20) * 1000,
  });
  const [, p99 = '', unit = ''] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? [];
  const [, rate = ''] = /Requests\/sec:\s+([\d.]+)/.exec(stdout) ?? [];
  const [, refused = '0'] = /Non-2xx or 3xx responses: (\d+)/.exec(stdout) ?? [];
  const [, ...errors] = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(stdout) ?? [];
  return {
    rate: Number(rate),
    p99: Number(p99) * (units[unit] ?? Number.NaN),
    refused: Number(refused),
    errors: errors.reduce((sum, count) => sum + Number(count), 0),
  };
}
