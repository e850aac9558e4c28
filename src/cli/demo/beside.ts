import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { run } from '../../kernel/command.ts';
import { createNamespace, deleteNamespace } from '../../kernel/netns.ts';

/** One of the lab's stand-in services on a plain link, and a proxy before it that has the same rules. */
export interface Beside {
  readonly host: string;
  readonly ports: { readonly server: number; readonly proxy: number };
  /** The command line that runs a command where the caller stands. */
  command(words: readonly string[]): string[];
  /** Ends what was started and removes it. */
  end(): Promise<void>;
}

const programs = resolve(import.meta.dirname, '../../lab/programs');
/** RFC 2544's range for benchmarks: nothing else on the machine has it. */
const addresses = { caller: '198.18.0.1', server: '198.18.0.2' };
const ports = { server: 3550, proxy: 8080 };
const startTimeoutMs = 10_000;

/** Starts the stand-in `service` and an nginx before it in a network namespace, and makes another one for its caller. */
export async function standBeside(service: string): Promise<Beside> {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-beside-'));
  const [caller, server] = [join(directory, 'caller'), join(directory, 'server')];
  const children: ChildProcess[] = [];
  const inside = (netns: string, words: readonly string[]) => ['nsenter', `--net=${netns}`, '--', ...words];
  const start = (words: readonly string[]) => {
    const [file = '', ...args] = inside(server, words);
    children.push(spawn(file, args, { stdio: 'ignore', env: { ...process.env, MYELIN_SERVICE: service } }));
  };
  const end = async () => {
    await Promise.all(
      children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const ended = new Promise((done) => child.once('exit', done));
        child.kill('SIGKILL');
        await ended;
      }),
    );
    for (const netns of [caller, server]) deleteNamespace(netns);
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    await Promise.all([caller, server].map(createNamespace));
    await run('ip', ['link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', server], {
      netns: caller,
    });
    for (const [netns, address] of [
      [caller, addresses.caller],
      [server, addresses.server],
    ] as const) {
      await run('ip', ['address', 'add', `${address}/30`, 'dev', 'eth0'], { netns });
      await run('ip', ['link', 'set', 'eth0', 'up'], { netns });
    }
    writeFileSync(join(directory, 'nginx.conf'), nginxConfiguration(directory));
    start([
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      join(programs, 'standin.ts'),
      `${ports.server}/TCP`,
    ]);
    start(['nginx', '-c', join(directory, 'nginx.conf'), '-e', 'stderr']);
    for (const port of Object.values(ports)) await answers(caller, port);
  } catch (error) {
    await end();
    throw error;
  }
  return { host: addresses.server, ports, command: (words) => inside(caller, words), end };
}

async function answers(netns: string, port: number): Promise<void> {
  const url = `http://${addresses.server}:${port}/products`;
  for (const until = Date.now() + startTimeoutMs; ; await sleep(50)) {
    try {
      await run('curl', ['-sSf', '-m', '1', '-o', '/dev/null', url], { netns });
      return;
    } catch (error) {
      if (Date.now() > until) throw error;
    }
  }
}

/** The catalogue's policy, as a proxy's users would write it. */
function nginxConfiguration(directory: string): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (each) => `  ${each}_temp_path ${directory}/${each};`,
  );
  return `daemon off;
master_process off;
pid ${directory}/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
${temporary.join('\n')}
  access_log off;
  keepalive_requests 100000;
  map $request_method $reads { default 0; GET 1; HEAD 1; }
  upstream service { server 127.0.0.1:${ports.server}; keepalive 4; keepalive_requests 100000; }
  server {
    listen ${ports.proxy};
    location /products {
      if ($reads = 0) { return 403; }
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass http://service;
    }
    location / { return 403; }
  }
}
`;
}
