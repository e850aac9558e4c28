/** A service that a stand-in calls whenever it is called itself. */
export interface Target {
  /** The host's first label, which is what a person calls the service. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly protocol: 'http' | 'redis';
}

const variable = /^(.+)_(ADDR|ADDRESS|URL|HOST)$/;
const redisPort = 6379;
/** Keeps one request from becoming a storm: no service of a real application calls more others than this. */
const mostTargets = 16;

/**
 * The services that a container's environment names in `*_ADDR`, `*_URL` and `*_HOST` (with its `*_PORT`), in the order
 * of their variables. Addresses to listen on (`0.0.0.0:80`, `:80`, localhost) are no targets; neither is what does not parse.
 */
export function targetsOf(env: Readonly<Record<string, string | undefined>>): Target[] {
  const found = new Map<string, Target>();
  for (const [key, value] of Object.entries(env)) {
    const [, prefix, kind] = variable.exec(key) ?? [];
    if (prefix === undefined || value === undefined || value === '') continue;
    const target = parseTarget(
      kind === 'HOST' && !value.includes(':') ? withPort(value, env[`${prefix}_PORT`]) : value,
    );
    if (target !== undefined) found.set(`${target.host}:${target.port}`, target);
  }
  return [...found.values()].slice(0, mostTargets);
}

/** @param text `host`, `host:port` or a URL; without a port it is that of the scheme, else 80. */
export function parseTarget(text: string): Target | undefined {
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (url === null || url.hostname === '') return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (/^(localhost|127\..*|0\.0\.0\.0|::|::1)$/.test(host)) return undefined;
  const scheme = url.protocol.slice(0, -1);
  const port = url.port !== '' ? Number(url.port) : scheme === 'redis' ? redisPort : scheme === 'https' ? 443 : 80;
  const redis = scheme === 'redis' || port === redisPort;
  return { name: host.split('.')[0] ?? host, host, port, protocol: redis ? 'redis' : 'http' };
}

function withPort(host: string, port: string | undefined): string {
  // A Service's own variables have the whole address in *_PORT: tcp://10.96.0.1:443.
  const number = port?.split(':').at(-1);
  return number !== undefined && /^\d+$/.test(number) ? `${host}:${number}` : host;
}
