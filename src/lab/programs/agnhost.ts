import { createSocket } from 'node:dgram';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer, isIPv6 } from 'node:net';
import { hostname } from 'node:os';
import { parseArgs } from 'node:util';
import { portsOf } from './ports.ts';

/*
 * What Kubernetes' agnhost image is used for in network tests: serve-hostname, netexec, porter, connect and pause.
 * Without a known sub-command it listens on the ports given as `80/TCP`, as netexec does. Every port answers over IPv4
 * and IPv6 with the host's name. SCTP is left out: Node has no sockets for it, nor have many kernels.
 */

interface Listener {
  readonly port: number;
  readonly kind: 'http' | 'tcp' | 'udp';
  /** What it answers; the host's name by default. */
  readonly text?: string;
}

function serve({ port, kind, text = hostname() }: Listener): void {
  if (kind === 'http') createHttpServer((message, response) => answer(message, response, text)).listen(port, '::');
  if (kind === 'tcp') createServer((socket) => socket.on('error', () => {}).end(text)).listen(port, '::');
  if (kind !== 'udp') return;
  const socket = createSocket('udp6', (datagram, peer) => {
    const asked = datagram.toString('utf8').trim();
    const reply = asked.startsWith('echo ')
      ? asked.slice(5)
      : asked === 'clientip'
        ? `${peer.address}:${peer.port}`
        : text;
    socket.send(reply, peer.port, peer.address, () => {});
  });
  socket.bind(port);
}

function answer(message: IncomingMessage, response: ServerResponse, text: string): void {
  message.resume();
  const url = URL.parse(`http://host${message.url ?? '/'}`);
  const { remoteAddress = '', remotePort = 0 } = message.socket;
  const client = remoteAddress.replace(/^::ffff:/, '');
  const replies: Record<string, string> = {
    '/echo': url?.searchParams.get('msg') ?? '',
    '/clientip': isIPv6(client) ? `[${client}]:${remotePort}` : `${client}:${remotePort}`,
    '/healthz': 'ok',
  };
  response.end(replies[url?.pathname ?? '/'] ?? text);
}

function listenersOf(command: string, args: string[], env: NodeJS.ProcessEnv): Listener[] {
  const { values } = parseArgs({
    args,
    strict: false,
    options: {
      port: { type: 'string', default: '9376' },
      'http-port': { type: 'string', default: '8080' },
      'udp-port': { type: 'string', default: '8081' },
    },
  });
  const on = (name: string) => values[name] === true || values[name] === 'true';
  switch (command) {
    case 'serve-hostname': {
      const port = Number(values.port);
      const http = !on('tcp') && !on('udp') && values.http !== 'false';
      return [
        ...(http ? [{ port, kind: 'http' } as const] : []),
        ...(on('tcp') ? [{ port, kind: 'tcp' } as const] : []),
        ...(on('udp') ? [{ port, kind: 'udp' } as const] : []),
      ];
    }
    case 'netexec':
      return [
        { port: Number(values['http-port']), kind: 'http' },
        { port: Number(values['udp-port']), kind: 'udp' },
      ];
    case 'porter':
      return Object.entries(env).flatMap(([name, text]) => {
        const port = /^SERVE_PORT_(\d+)$/.exec(name)?.[1];
        return port === undefined || text === undefined ? [] : [{ port: Number(port), kind: 'http', text } as const];
      });
    default:
      return portsOf([command, ...args]).flatMap(({ port, protocol }) => {
        if (protocol === 'SCTP') return [];
        return [{ port, kind: protocol === 'TCP' ? 'http' : 'udp' } as const];
      });
  }
}

/** `connect HOST:PORT [--timeout 1s] [--protocol tcp|udp]`: prints a word and exits 1 where there is no way through. */
function tryConnect(args: string[]): void {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { timeout: { type: 'string', default: '0s' }, protocol: { type: 'string', default: 'tcp' } },
  });
  const [, host = '', port = ''] = /^\[?(.+?)\]?:(\d+)$/.exec(positionals[0] ?? '') ?? [];
  const [, number = '0', unit = 's'] = /^(\d+)(ms|s)$/.exec(values.timeout) ?? [];
  const timeout = Number(number) * (unit === 's' ? 1000 : 1);
  const end = (word: string) => {
    if (word !== '') console.error(word);
    process.exit(word === '' ? 0 : 1);
  };
  if (timeout > 0) setTimeout(() => end('TIMEOUT'), timeout);
  if (values.protocol === 'udp') {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4', () => end(''));
    socket.on('error', () => end('REFUSED'));
    socket.connect(Number(port), host, () => socket.send('hostname\n'));
  } else if (values.protocol === 'tcp') {
    const socket = connect(Number(port), host, () => end(''));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED' ? 'REFUSED' : 'OTHER'));
  } else end('OTHER');
}

const [command = '', ...rest] = process.argv.slice(2);
if (command === 'connect') tryConnect(rest);
else {
  for (const listener of listenersOf(command, rest, process.env)) serve(listener);
  setInterval(() => {}, 2 ** 30);
  process.on('SIGTERM', () => process.exit(0));
}
