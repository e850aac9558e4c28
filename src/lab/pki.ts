import { mkdirSync, writeFileSync } from 'node:fs';
import { CertificateAuthority, type Credentials } from '../identity/ca.ts';
import type { LabPlan } from './plan.ts';
import { ports } from './plan.ts';

/** Where the lab keeps its keys and certificates, all below one directory that only root may enter. */
export function pkiPaths(plan: LabPlan) {
  const directory = `${plan.directory}/pki`;
  return {
    directory,
    caDirectory: `${directory}/ca`,
    bundle: `${directory}/ca.pem`,
    certificate: (name: string) => `${directory}/${name}.pem`,
    key: (name: string) => `${directory}/${name}.key`,
    kubeconfig: (name: string) =>
      name === 'admin' ? `${plan.directory}/kubeconfig` : `${directory}/${name}.kubeconfig`,
  };
}

/** Clients of the API, each with its kubeconfig: common name and groups. */
const clients = {
  admin: { name: 'lab-admin', groups: ['system:masters'] },
  controller: { name: 'system:myelin-controller', groups: ['system:masters'] },
  labd: { name: 'system:myelin-lab', groups: ['system:masters'] },
  dns: { name: 'system:serviceaccount:kube-system:kube-dns', groups: ['myelin:readers'] },
} as const;

/** Makes the lab's CA, and a key and certificate for everybody who needs one. */
export async function createPki(plan: LabPlan): Promise<void> {
  const paths = pkiPaths(plan);
  mkdirSync(paths.directory, { recursive: true, mode: 0o700 });
  const ca = await CertificateAuthority.open({ trustDomain: plan.trustDomain, directory: paths.caDirectory });
  const roots = ca.bundle.roots.map(({ native }) => native.toString()).join('');
  writeFileSync(paths.bundle, roots, { mode: 0o644 });
  const save = (name: string, { chain, privateKey }: Credentials) => {
    writeFileSync(paths.certificate(name), chain, { mode: 0o644 });
    writeFileSync(paths.key(name), privateKey, { mode: 0o600 });
  };
  const server = (name: string, dnsNames: readonly string[]) =>
    ca
      .issueServer({ commonName: name, dnsNames: [...dnsNames, 'localhost'], addresses: [...plan.control.addresses] })
      .then((credentials) => save(name, credentials));
  await Promise.all([
    server('api', ['api', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc']),
    server('controller-server', ['controller']),
    ...plan.nodes.map(({ name }) =>
      ca.issueNode(name).then((credentials) => {
        save(name, credentials);
        writeKubeconfig(plan, name, credentials, roots);
      }),
    ),
    ...Object.entries(clients).map(([client, { name, groups }]) =>
      ca.issueClient(name, groups).then((credentials) => {
        save(client, credentials);
        writeKubeconfig(plan, client, credentials, roots);
      }),
    ),
  ]);
}

/** A kubeconfig that holds its credentials itself, so that it may be copied. */
function writeKubeconfig(plan: LabPlan, name: string, { chain, privateKey }: Credentials, roots: string): void {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const paths = pkiPaths(plan);
  const context = `myelin-${plan.name}`;
  // JSON is YAML.
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': context,
    contexts: [{ name: context, context: { cluster: context, user: name } }],
    clusters: [
      {
        name: context,
        cluster: { server: apiUrl(plan), 'certificate-authority-data': base64(roots) },
      },
    ],
    users: [{ name, user: { 'client-certificate-data': base64(chain), 'client-key-data': base64(privateKey) } }],
  };
  writeFileSync(paths.kubeconfig(name), `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
}

function apiUrl(plan: LabPlan): string {
  return `https://${plan.control.addresses[0]}:${ports.api}`;
}

export function controllerUrl(plan: LabPlan): string {
  return `https://${plan.control.addresses[0]}:${ports.controller}`;
}
