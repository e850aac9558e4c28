import { createHash } from 'node:crypto';
import { createSecureContext, createServer, type SecureContext, type Server } from 'node:tls';
import { namedKey } from '../../policy/proxy/tls.ts';
import type { TlsMaterial } from '../../policy/proxy/wire.ts';
import type { TlsSecret } from '../../policy/tls.ts';

interface Held {
  /** Of all that it was made of: what stays the same is not made anew. */
  readonly digest: string;
  readonly context: SecureContext;
  /** Of those that end TLS: what each connection's own server is made of. */
  readonly shown?: Shown;
}

/** PEM. Zeroed once it is another's turn. */
interface Shown {
  readonly cert: Buffer;
  readonly key: Buffer;
}

const oldest = { minVersion: 'TLSv1.2' } as const;
/** What is to trust nobody; without it Node would load the world's certificates. */
const nobody: string[] = [];

/** Certificates and keys that rules name, as the agent said them last: in memory, as long as rules name them. */
export class Secrets {
  #held: ReadonlyMap<string, Held> = new Map();

  /** @param all What there is by now; what is missing, or cannot be used, is not there. */
  take(all: readonly TlsMaterial[]): void {
    const held = new Map<string, Held>();
    for (const material of all) {
      const key = namedKey(material);
      const { certificate, privateKey, trustedCA } = material;
      const digest = createHash('sha256')
        .update(JSON.stringify([certificate, privateKey, trustedCA]))
        .digest('hex');
      const known = this.#held.get(key);
      const made = known?.digest === digest ? known : holdingOf(material, digest);
      if (made !== undefined) held.set(key, made);
    }
    const kept = new Set(held.values());
    for (const old of this.#held.values()) if (!kept.has(old)) old.shown?.key.fill(0);
    this.#held = held;
  }

  /** @returns Whom a server must prove itself to; undefined where that cannot be said. */
  trustFor(secret: TlsSecret): SecureContext | undefined {
    return this.#held.get(namedKey({ role: 'originate', secret }))?.context;
  }

  /** @returns What makes a server of one connection; undefined where there is nothing to show. */
  serverFor(secret: TlsSecret): ((protocols: readonly string[]) => Server) | undefined {
    const shown = this.#held.get(namedKey({ role: 'terminate', secret }))?.shown;
    if (shown === undefined) return undefined;
    // Of its own, because what may be chosen by ALPN is each connection's own. Two at hand: the policy's change zeroes one.
    const { cert, key } = { cert: shown.cert, key: Buffer.from(shown.key) };
    return (protocols) => {
      const server = createServer({ ...oldest, cert, key, ca: nobody, ALPNProtocols: [...protocols] });
      key.fill(0);
      return server;
    };
  }
}

function holdingOf({ role, certificate, privateKey, trustedCA }: TlsMaterial, digest: string): Held | undefined {
  // Without certificates of its own to trust, a context would trust the world's.
  const whole = role === 'originate' ? Boolean(trustedCA) : Boolean(certificate && privateKey);
  if (!whole || Boolean(certificate) !== Boolean(privateKey)) return undefined;
  try {
    const context = createSecureContext({
      ...oldest,
      ca: trustedCA ?? nobody,
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(privateKey === undefined ? {} : { key: privateKey }),
    });
    if (role === 'originate') return { digest, context };
    return { digest, context, shown: { cert: Buffer.from(certificate ?? ''), key: Buffer.from(privateKey ?? '') } };
  } catch {
    // The agent has looked at it and says what is wrong; what OpenSSL says of keys is nobody's to hear.
    return undefined;
  }
}
