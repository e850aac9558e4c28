/**
 * The one namespace whose Secrets policies may name: nodes may read these and no others (docs/SECURITY.md), and whoever
 * writes there decides, Secret by Secret, whose policies may use it.
 */
export const secretsNamespace = 'myelin-secrets';

/** On a Secret: the namespaces whose policies may name it, by commas; `*`: all. Policies of the whole cluster always may. */
export const grantAnnotation = 'myelin.dev/policy-namespaces';

/** One side of TLS, by where its certificates and keys are. */
export interface TlsSecret {
  /** In `secretsNamespace`. */
  readonly name: string;
  /** Namespace of the policy that names it; empty: of one of the whole cluster. */
  readonly by: string;
  /** The names of its data, each PEM: the chain that is shown, with its key. Both or neither. */
  readonly certificate?: string;
  readonly privateKey?: string;
  /** The certificates that the other end's chain must lead to. */
  readonly trustedCA?: string;
}

/** What a rule wants to be done with the TLS of the connections that it is about, so that requests within can be read. */
export interface TlsUse {
  /** The proxy ends the client's TLS, in the server's place. */
  readonly terminate?: TlsSecret;
  /** The proxy opens TLS to the server, which must prove its name. */
  readonly originate?: TlsSecret;
}

/** What is equal where the same is shown and trusted, whoever names it. */
export function secretKey({ name, certificate = '', privateKey = '', trustedCA = '' }: TlsSecret): string {
  return JSON.stringify([name, certificate, privateKey, trustedCA]);
}

/** Whether two uses cannot both be had on one connection. */
export function conflict(a: TlsUse, b: TlsUse): boolean {
  const differ = (one: TlsSecret | undefined, other: TlsSecret | undefined): boolean =>
    one !== undefined && other !== undefined && secretKey(one) !== secretKey(other);
  return differ(a.terminate, b.terminate) || differ(a.originate, b.originate);
}
