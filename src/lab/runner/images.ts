import type { Container } from '../../api/kinds.ts';

/** What runs in place of an image. */
export type ProgramKind = 'standin' | 'load' | 'redis' | 'nginx' | 'agnhost' | 'dns' | 'shell' | 'pause';

/** How a container of a lab is started. */
export interface Program {
  readonly kind: ProgramKind;
  readonly command: readonly string[];
  /** Path in the container → text. */
  readonly files: Readonly<Record<string, string>>;
  readonly env: Readonly<Record<string, string>>;
}

/** Where the programs of the lab are, as a container sees them. */
export interface ProgramPaths {
  readonly node: string;
  /** Directory of the staged stand-ins. */
  readonly programs: string;
  /** The source tree, for programs that are more than a stand-in. */
  readonly repository: string;
}

/** The last part of an image's name → what stands in for it. Everything else is a service. */
const table: Readonly<Record<string, ProgramKind>> = {
  redis: 'redis',
  valkey: 'redis',
  nginx: 'nginx',
  'nginx-unprivileged': 'nginx',
  agnhost: 'agnhost',
  pause: 'pause',
  loadgenerator: 'load',
  'loadgenerator-stand-in': 'load',
  'myelin-dns': 'dns',
  ...Object.fromEntries(
    ['busybox', 'alpine', 'debian', 'ubuntu', 'bash', 'curl', 'netshoot', 'toolbox'].map((name) => [name, 'shell']),
  ),
};

/** @param image `registry/path/name:tag@digest`, each part but the name optional. */
export function kindOfImage(image: string): ProgramKind {
  const [path = ''] = image.split('@');
  const [name = ''] = (path.split('/').at(-1) ?? '').split(':');
  return table[name] ?? 'standin';
}

/** Small heaps and few threads: there are dozens of these on a few cores. */
const nodeFlags = ['--max-semi-space-size=1', '--v8-pool-size=1'];

/**
 * Finds what to run for a container.
 * A command of the manifest is run where the image's programs are the machine's own; a stand-in has no use for it.
 */
export function programFor(container: Container, paths: ProgramPaths): Program {
  const kind = kindOfImage(container.image ?? '');
  const { command = [], args = [] } = container;
  const own = (line: readonly string[], extra: Partial<Program> = {}): Program => ({
    kind,
    command: command.length > 0 ? [...command, ...args] : line,
    files: {},
    env: {},
    ...extra,
  });
  const script = (name: string, ...rest: string[]) => [
    paths.node,
    ...nodeFlags,
    `${paths.programs}/${name}.mjs`,
    ...rest,
  ];
  const ports = (container.ports ?? []).map((port) => `${port.containerPort}/${port.protocol ?? 'TCP'}`);
  switch (kind) {
    case 'redis':
      return own(redisCommand(container, args));
    case 'nginx': {
      const files = { '/etc/nginx/nginx.conf': nginxConfiguration(portNumbers(container, 80)) };
      return own(args.length > 0 && !args[0]?.startsWith('-') ? args : ['nginx', ...args], { files });
    }
    case 'agnhost': {
      const run = script('agnhost').map((word) => `'${word}'`);
      const files = { '/agnhost': `#!/bin/sh\nexec ${run.join(' ')} "$@"\n` };
      const [first, ...rest] = [...command, ...args];
      if (first === undefined) return { ...own(script('agnhost', ...ports)), files };
      const known =
        first === '/agnhost' || first === 'agnhost' ? rest : command.length === 0 ? [first, ...rest] : undefined;
      return { ...own([]), command: known === undefined ? [first, ...rest] : script('agnhost', ...known), files };
    }
    case 'dns':
      return {
        ...own([]),
        command: [paths.node, ...nodeFlags, quiet, `${paths.repository}/src/lab/programs/dns.ts`, ...args],
      };
    case 'shell':
      return own(args.length > 0 ? args : ['sh']);
    case 'pause':
      return own(['sleep', 'infinity']);
    case 'load':
      return { ...own([]), command: script('load') };
    case 'standin':
      return { ...own([]), command: script('standin', ...ports) };
  }
}

const quiet = '--disable-warning=ExperimentalWarning';

function redisCommand(container: Container, args: readonly string[]): readonly string[] {
  if (args.length > 0 && !args[0]?.startsWith('-')) return args;
  const [port] = portNumbers(container, 6379);
  const settings = ['--port', String(port), '--bind', '*', '-::*', '--protected-mode', 'no', '--dir', '/tmp'];
  return ['redis-server', ...settings, '--save', '', '--appendonly', 'no', ...args];
}

function portNumbers(container: Container, fallback: number): number[] {
  const numbers = (container.ports ?? []).map((port) => port.containerPort);
  return numbers.length > 0 ? numbers : [fallback];
}

function nginxConfiguration(ports: readonly number[]): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (each) => `  ${each}_temp_path /tmp/${each};`,
  );
  return `daemon off;
master_process off;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  default_type text/html;
${temporary.join('\n')}
  server {
${ports.map((port) => `    listen ${port};\n    listen [::]:${port};`).join('\n')}
    location / { return 200 "<!DOCTYPE html>\\n<title>Welcome to nginx!</title>\\n<h1>Welcome to nginx!</h1>\\n<p>$hostname</p>\\n"; }
  }
}
`;
}
