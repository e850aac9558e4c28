import type { Deployment, Namespace, Service, ServiceAccount } from '../api/kinds.ts';
import { pkiPaths } from './pki.ts';
import type { LabPlan } from './plan.ts';

/** Where the name server finds its credentials, in its container. */
const credentials = '/var/run/myelin';

/** What every cluster has beside its users' own: the name server, as `kube-dns` in `kube-system`. */
export function systemManifest(plan: LabPlan): (Namespace | ServiceAccount | Service | Deployment)[] {
  const metadata = { name: 'kube-dns', namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns' } };
  const pki = pkiPaths(plan);
  const file = (name: string, path: string) => ({
    volume: { name, hostPath: { path, type: 'File' } },
    mount: { name, mountPath: `${credentials}/${name}`, readOnly: true },
  });
  const files = [file('kubeconfig', pki.kubeconfig('dns'))];
  const probe = { tcpSocket: { port: 'dns-tcp' }, periodSeconds: 2 };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: metadata.name, namespace: metadata.namespace } },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata,
      spec: {
        clusterIP: plan.dnsAddress,
        selector: metadata.labels,
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP', targetPort: 'dns' },
          { name: 'dns-tcp', port: 53, protocol: 'TCP', targetPort: 'dns-tcp' },
        ],
      },
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: {
        replicas: 1,
        selector: { matchLabels: metadata.labels },
        template: {
          metadata: { labels: metadata.labels },
          spec: {
            serviceAccountName: metadata.name,
            terminationGracePeriodSeconds: 1,
            containers: [
              {
                name: 'dns',
                image: 'myelin-dns',
                args: ['--kubeconfig', `${credentials}/kubeconfig`],
                ports: [
                  { name: 'dns', containerPort: 53, protocol: 'UDP' },
                  { name: 'dns-tcp', containerPort: 53, protocol: 'TCP' },
                ],
                readinessProbe: probe,
                livenessProbe: { ...probe, periodSeconds: 10 },
                volumeMounts: files.map(({ mount }) => mount),
              },
            ],
            volumes: files.map(({ volume }) => volume),
          },
        },
      },
    },
  ];
}
