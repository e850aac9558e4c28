import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Live, Pod } from '../../api/kinds.ts';
import { deleteNamespace, isNamespace } from '../../kernel/netns.ts';
import type { NodeContext } from './context.ts';
import { cniSocket, createSandbox, removeSandbox, type Sandbox, sandboxFor } from './sandbox.ts';
import { readSandboxRecord, removeSandboxRecord, writeSandboxRecord } from './sandbox-record.ts';

/** Why a pod has no sandbox yet, as its status says it. */
export interface Trouble {
  readonly reason: string;
  readonly message: string;
}

export interface PodSandboxDeps {
  /** Where the pod's files are. */
  readonly directory: string;
  readonly log: Logger;
  /** Bounds how many sandboxes are being made at once. */
  readonly turn: <T>(job: () => Promise<T>) => Promise<T>;
  /** The sandbox, or what stands in its way, is another now. */
  readonly onChange: () => void;
}

const retryMs = { first: 250, last: 5000 };
const networkPollMs = 50;

/** What the containers of one pod have in common, its network above all: made, lost and removed, and on record. */
export class PodSandbox {
  readonly #node: NodeContext;
  readonly #deps: PodSandboxDeps;
  readonly #metadata: Live<Pod>['metadata'];
  /** Whether it is the node's own network, which nobody makes or removes. */
  readonly #isHost: boolean;
  #sandbox: Sandbox | undefined;
  #attempt = 0;
  #adopting = false;
  #trouble: Trouble | undefined;

  constructor({ metadata, spec }: Live<Pod>, node: NodeContext, deps: PodSandboxDeps) {
    this.#node = node;
    this.#deps = deps;
    this.#metadata = metadata;
    this.#isHost = spec.hostNetwork === true;
    const left = readSandboxRecord(deps.directory);
    if (left === undefined) return;
    this.#attempt = left.attempt;
    this.#sandbox = left.sandbox ?? sandboxFor(node, metadata, left.attempt);
    this.#adopting = left.sandbox !== undefined && isNamespace(left.sandbox.netns);
    deps.log.info({ adopting: this.#adopting }, 'an earlier daemon had this pod');
  }

  get present(): Sandbox | undefined {
    return this.#sandbox;
  }

  /** Whether it is one that an earlier daemon made, whose containers may run. */
  get adopting(): boolean {
    return this.#adopting;
  }

  get trouble(): Trouble | undefined {
    return this.#trouble;
  }

  /** Whoever had it, it is taken over. */
  adopted(): void {
    this.#adopting = false;
  }

  /** Tries until there is one, or nobody wants it any more. */
  async make(signal: AbortSignal): Promise<void> {
    const { log, turn, onChange } = this.#deps;
    if (this.#isHost) {
      this.#sandbox = { id: '', netns: this.#node.netns, addresses: this.#node.addresses };
      this.#keepRecord(this.#sandbox);
      onChange();
      return;
    }
    for (let delay = retryMs.first; !signal.aborted; delay = Math.min(2 * delay, retryMs.last)) {
      await this.#networkReady(signal);
      if (signal.aborted) return;
      try {
        this.#keepRecord();
        this.#sandbox = await turn(() => createSandbox(this.#node, this.#metadata, this.#attempt));
        this.#keepRecord(this.#sandbox);
        this.#trouble = undefined;
        onChange();
        return;
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        log.warn({ err: error }, 'no sandbox yet');
        this.#trouble = { reason: 'FailedCreatePodSandBox', message };
        onChange();
        await sleep(delay, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** As a node does that loses power: the namespace is gone and nobody was told. */
  lose(): void {
    if (this.#sandbox !== undefined && !this.#isHost) deleteNamespace(this.#sandbox.netns);
    this.#sandbox = undefined;
    this.#attempt++;
  }

  /** Tries until it is gone. */
  async remove(): Promise<void> {
    const sandbox = this.#sandbox;
    if (sandbox === undefined || this.#isHost) return;
    for (let delay = retryMs.first; ; delay = Math.min(2 * delay, retryMs.last)) {
      try {
        await removeSandbox(this.#node, sandbox, this.#metadata);
        this.#sandbox = undefined;
        removeSandboxRecord(this.#deps.directory);
        return;
      } catch (error) {
        this.#deps.log.warn({ err: error }, 'the sandbox cannot be removed yet');
        await sleep(delay);
      }
    }
  }

  #keepRecord(sandbox?: Sandbox): void {
    const { namespace, name, uid } = this.#metadata;
    const pod = { namespace, name, uid };
    writeSandboxRecord(this.#deps.directory, { node: this.#node.name, pod, attempt: this.#attempt, sandbox });
  }

  /** A runtime does not ask a plugin whose agent has yet to come up. */
  async #networkReady(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !existsSync(cniSocket(this.#node))) {
      if (this.#trouble === undefined) {
        this.#trouble = { reason: 'NetworkNotReady', message: `the agent of ${this.#node.name} is not up` };
        this.#deps.onChange();
      }
      await sleep(networkPollMs, undefined, { signal }).catch(() => undefined);
    }
  }
}
