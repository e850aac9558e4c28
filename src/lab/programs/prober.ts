import { createSocket } from 'node:dgram';
import { type RequestOptions, request } from 'node:http';
import { connect, isIP, isIPv6 } from 'node:net';
import { performance } from 'node:perf_hooks';
import { createInterface } from 'node:readline';
import { healthPath, healthRequest, isServing } from './health.ts';
import type { ProbeAnswer, ProbeRequest } from './probing.ts';

/*
 * Tries connections from inside the network namespace that it was started in, as it is told on standard input, and ends
 * with it. A process that is there already makes a probe cheap: a kubelet's every second, or a test's hundreds.
 */

type Outcome = Omit<ProbeAnswer, 'id' | 'ms'>;
type Kind<K extends ProbeRequest['kind']> = Extract<ProbeRequest, { kind: K }>;
const mostBody = 1024;
const resendMs = 250;

function tcp({ host, port }: ProbeRequest, signal: AbortSignal): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port }, () => {
      socket.destroy();
      resolve({ ok: true });
    });
    socket.on('error', reject);
    signal.addEventListener('abort', () => socket.destroy());
  });
}

function udp({ host, port }: ProbeRequest, signal: AbortSignal): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    // Refusals come as an error on the socket and are tried again: the server may be about to start.
    const send = () => socket.send('hostname\n', port, host, () => {});
    const timer = setInterval(send, resendMs);
    const end = () => {
      clearInterval(timer);
      socket.close();
    };
    signal.addEventListener('abort', end);
    socket.on('message', (message, peer) => {
      // As a client would that has connected its socket: what comes from elsewhere answers nothing.
      if (isIP(host) !== 0 && peer.address !== host) return;
      signal.removeEventListener('abort', end);
      end();
      resolve({ ok: true, body: message.toString('utf8', 0, mostBody) });
    });
    socket.on('error', (error) => {
      signal.removeEventListener('abort', end);
      end();
      reject(error);
    });
    send();
  });
}

async function http({ host, port, path, headers, tls }: Kind<'http'>, signal: AbortSignal): Promise<Outcome> {
  const options = { host, port, path, headers: { ...headers }, agent: false, rejectUnauthorized: false, signal };
  const start = tls === true ? (await import('node:https')).request : request;
  return await new Promise((resolve, reject) => {
    const call = start(options satisfies RequestOptions & { rejectUnauthorized: boolean }, (response) => {
      const status = response.statusCode ?? 0;
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        if (body.length < mostBody) body = (body + text).slice(0, mostBody);
      });
      response.on('error', reject);
      response.on('end', () => resolve({ ok: status >= 200 && status < 400, status, body }));
    });
    call.on('error', reject);
    call.end();
  });
}

async function grpc({ host, port, service }: Kind<'grpc'>, signal: AbortSignal): Promise<Outcome> {
  const http2 = await import('node:http2');
  return await new Promise((resolve, reject) => {
    const session = http2.connect(`http://${isIPv6(host) ? `[${host}]` : host}:${port}`);
    signal.addEventListener('abort', () => session.destroy());
    session.on('error', reject);
    const headers = { ':method': 'POST', ':path': healthPath, 'content-type': 'application/grpc', te: 'trailers' };
    const stream = session.request(headers);
    const chunks: Buffer[] = [];
    let status = '';
    // A refusal may come without a body, with the status among the headers.
    for (const event of ['response', 'trailers'] as const)
      stream.on(event, (block: Record<string, unknown>) => {
        status = String(block['grpc-status'] ?? status);
      });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('end', () => {
      session.close();
      const ok = status === '0' && isServing(Buffer.concat(chunks));
      resolve(ok ? { ok } : { ok, error: `grpc-status ${status}` });
    });
    stream.end(healthRequest(service));
  });
}

function attemptOf(wanted: ProbeRequest, signal: AbortSignal): Promise<Outcome> {
  switch (wanted.kind) {
    case 'tcp':
      return tcp(wanted, signal);
    case 'udp':
      return udp(wanted, signal);
    case 'http':
      return http(wanted, signal);
    case 'grpc':
      return grpc(wanted, signal);
  }
}

async function probe(wanted: ProbeRequest): Promise<ProbeAnswer> {
  const from = performance.now();
  const patience = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Outcome>((resolve) => {
    timer = setTimeout(() => {
      resolve({ ok: false, error: 'timeout' });
      patience.abort();
    }, wanted.timeoutMs);
  });
  const attempt = attemptOf(wanted, patience.signal).catch((error: NodeJS.ErrnoException) => ({
    ok: false,
    error: error.code ?? error.message,
  }));
  const outcome = await Promise.race([attempt, late]);
  clearTimeout(timer);
  return { id: wanted.id, ms: Math.round((performance.now() - from) * 1000) / 1000, ...outcome };
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const wanted: ProbeRequest = JSON.parse(line);
    void probe(wanted).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
  })
  .on('close', () => process.exit(0));
