import assert from 'node:assert/strict';
import { kinds, type Pod } from '../../src/api/kinds.ts';
import type { TestLab, TestPod } from './lab.ts';

interface Listening {
  readonly port: number;
  readonly protocol?: 'TCP' | 'UDP';
  readonly name?: string;
}

/** A pod of one container that answers with its name wherever it listens, and waits where it does not. */
export class PodBuilder {
  readonly #lab: TestLab;
  readonly #pod: Pod;

  constructor(lab: TestLab, name: string, namespace: string) {
    this.#lab = lab;
    const container = { name: 'main', image: 'pause' };
    const spec = { containers: [container], terminationGracePeriodSeconds: 0 };
    this.#pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace, labels: { app: name } }, spec };
  }

  on(node: string): this {
    this.#pod.spec.nodeName = node;
    return this;
  }

  labelled(labels: Record<string, string>): this {
    this.#pod.metadata.labels = { ...this.#pod.metadata.labels, ...labels };
    return this;
  }

  /** Of a service account that is there already. */
  as(serviceAccount: string): this {
    this.#pod.spec.serviceAccountName = serviceAccount;
    return this;
  }

  /** Answers on these ports: HTTP over TCP, and UDP, with the pod's name, over IPv4 and IPv6. */
  serving(...ports: readonly (number | Listening)[]): this {
    const all = ports.map((port) => (typeof port === 'number' ? { port } : port));
    const [container] = this.#pod.spec.containers;
    assert.ok(container !== undefined);
    container.image = 'agnhost';
    container.ports = all.map(({ port, protocol = 'TCP', name }) => ({
      containerPort: port,
      protocol,
      ...(name === undefined ? {} : { name }),
    }));
    const tcp = all.find(({ protocol = 'TCP' }) => protocol === 'TCP');
    if (tcp !== undefined) container.readinessProbe = { tcpSocket: { port: tcp.port }, periodSeconds: 1 };
    return this;
  }

  /** Changes whatever else is to be different. */
  with(change: (pod: Pod) => void): this {
    change(this.#pod);
    return this;
  }

  /** Makes it and waits for nothing. */
  async begin(): Promise<void> {
    await this.#lab.api.create(kinds.Pod, this.#pod);
  }

  /** @returns The pod, when it is ready. */
  async create(): Promise<TestPod> {
    const { namespace = 'default', name = '' } = this.#pod.metadata;
    await this.begin();
    return await this.#lab.running(name, namespace);
  }
}
