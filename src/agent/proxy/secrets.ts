import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { Logger } from 'pino';
import { Reflector } from '../../api/client/reflector.ts';
import type { Api } from '../../api/client/types.ts';
import { kinds, type Live, type Secret } from '../../api/kinds.ts';
import type { NamedSecret } from '../../policy/proxy/tls.ts';
import type { TlsMaterial } from '../../policy/proxy/wire.ts';
import { grantAnnotation, secretsNamespace, type TlsSecret } from '../../policy/tls.ts';

export interface SecretsDeps {
  readonly api: Api;
  readonly logger: Logger;
  /** What can be used is another now. */
  readonly onChange: () => void;
}

/**
 * The Secrets that policy names for this node's pods, each watched by its name as long as it is named, and no others. They are
 * in this process's memory and the proxy's, and nowhere else.
 */
export class ProxySecrets {
  readonly #deps: SecretsDeps;
  readonly #watched = new Map<string, Reflector<Secret>>();
  #wanted: readonly NamedSecret[] | undefined;

  constructor(deps: SecretsDeps) {
    this.#deps = deps;
  }

  /** @param named All that policy names by now. */
  want(named: readonly NamedSecret[]): void {
    this.#wanted = named;
    const names = new Set(named.map(({ secret }) => secret.name));
    for (const [name, reflector] of this.#watched) if (!names.has(name)) this.#leave(name, reflector);
    for (const name of names) if (!this.#watched.has(name)) this.#watch(name);
    this.#deps.onChange();
  }

  /** Whether it is known by now what policy names, and each has been read, or cannot be: until then, what was stays. */
  get settled(): boolean {
    const known = [...this.#watched.values()].every(({ health }) => health.synced || health.error !== undefined);
    return this.#wanted !== undefined && known;
  }

  /** What can be used. */
  get usable(): TlsMaterial[] {
    return (this.#wanted ?? []).flatMap((named) => {
      const material = this.#materialFor(named);
      return typeof material === 'string' ? [] : [material];
    });
  }

  /** Why connections are closed, by the Secret: nothing that is in one. */
  get problems(): string[] {
    return [
      ...new Set(
        (this.#wanted ?? []).flatMap((named) => {
          const material = this.#materialFor(named);
          return typeof material === 'string' ? [`Secret ${secretsNamespace}/${named.secret.name} ${material}`] : [];
        }),
      ),
    ];
  }

  async close(): Promise<void> {
    this.#wanted = [];
    await Promise.all([...this.#watched.values()].map((reflector) => reflector.close()));
  }

  #watch(name: string): void {
    const { api, logger, onChange } = this.#deps;
    const reflector = new Reflector<Secret>(
      { resource: kinds.Secret, namespace: secretsNamespace, fieldSelector: `metadata.name=${name}` },
      { api, logger },
    );
    reflector.onChange(onChange);
    reflector.start();
    // Where there is none of the name, nothing changes, and yet it is known.
    reflector.synced.then(onChange, () => undefined);
    this.#watched.set(name, reflector);
  }

  #leave(name: string, reflector: Reflector<Secret>): void {
    this.#watched.delete(name);
    reflector.close().catch((error: unknown) => this.#deps.logger.warn({ err: error, secret: name }, 'a watch stays'));
  }

  /** @returns What is wrong with it, in words, where it cannot be used. */
  #materialFor({ role, secret }: NamedSecret): TlsMaterial | string {
    const reflector = this.#watched.get(secret.name);
    const found = reflector?.get(`${secretsNamespace}/${secret.name}`)?.object;
    if (found === undefined) {
      const { synced = false, error } = reflector?.health ?? {};
      return error === undefined ? (synced ? 'is not there' : 'has not been read yet') : `cannot be read: ${error}`;
    }
    const parts = partsOf(found, secret);
    return typeof parts === 'string' ? parts : { role, secret, ...parts };
  }
}

type Parts = Pick<TlsMaterial, 'certificate' | 'privateKey' | 'trustedCA'>;

/**
 * What a policy's reference comes to in a Secret.
 * @returns What is wrong with it, in words, without anything that is in it.
 */
function partsOf({ metadata, data = {} }: Pick<Live<Secret>, 'metadata' | 'data'>, secret: TlsSecret): Parts | string {
  const granted = (metadata.annotations?.[grantAnnotation] ?? '').split(',').map((name) => name.trim());
  if (secret.by !== '' && !granted.includes(secret.by) && !granted.includes('*'))
    return `is not for policies of the namespace ${secret.by} (its annotation ${grantAnnotation} does not name it)`;
  const texts: Record<keyof Parts, string | undefined> = {
    certificate: undefined,
    privateKey: undefined,
    trustedCA: undefined,
  };
  for (const part of ['certificate', 'privateKey', 'trustedCA'] as const) {
    const name = secret[part];
    if (name === undefined) continue;
    if (!Object.hasOwn(data, name)) return `has no ${name}`;
    texts[part] = Buffer.from(data[name] ?? '', 'base64').toString('utf8');
  }
  const { certificate, privateKey, trustedCA } = texts;
  if (trustedCA !== undefined && certificateIn(trustedCA) === undefined)
    return `has no certificate in ${secret.trustedCA}`;
  if (certificate === undefined || privateKey === undefined)
    return trustedCA === undefined ? 'is asked for nothing' : { trustedCA };
  const shown = certificateIn(certificate);
  if (shown === undefined) return `has no certificate in ${secret.certificate}`;
  try {
    if (!shown.checkPrivateKey(createPrivateKey(privateKey)))
      return `has a key in ${secret.privateKey} that is not its certificate’s`;
  } catch {
    return `has no private key in ${secret.privateKey}`;
  }
  return { certificate, privateKey, ...(trustedCA === undefined ? {} : { trustedCA }) };
}

/** The first of a chain. */
function certificateIn(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}
