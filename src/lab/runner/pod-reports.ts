import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { isApiError } from '../../api/client/error.ts';
import type { Api } from '../../api/client/types.ts';
import { kinds, type Live, type Pod, type PodStatus } from '../../api/kinds.ts';

export interface PodReportsDeps {
  readonly api: Api;
  readonly log: Logger;
  /** What there is to tell now, of which pod; undefined where the API has it no longer. */
  readonly news: () => { readonly pod: Live<Pod>; readonly status: PodStatus } | undefined;
  /** The pod as the API has it after a report. */
  readonly onTold: (pod: Live<Pod>) => void;
}

/** Takes back in a merge patch what an earlier report said. */
const noTrouble = { reason: null, message: null };
const retryMs = 250;

/** Tells the API how a pod is, one report at a time; what changes meanwhile goes into the next. */
export class PodReports {
  readonly #deps: PodReportsDeps;
  #sending: Promise<void> | undefined;
  #dirty = false;

  constructor(deps: PodReportsDeps) {
    this.#deps = deps;
  }

  /** Something of the pod is another. */
  send(): void {
    this.#dirty = true;
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
  }

  /** Resolves when nothing is on its way. */
  async settled(): Promise<void> {
    await this.#sending;
  }

  async #sendAll(): Promise<void> {
    const { api, log, news, onTold } = this.#deps;
    while (this.#dirty) {
      const found = news();
      if (found === undefined) return;
      this.#dirty = false;
      const { pod, status } = found;
      const { namespace, name, uid } = pod.metadata;
      try {
        const told = await api.patchStatus(
          kinds.Pod,
          { namespace, name },
          { type: 'merge', patch: { metadata: { uid }, status: { ...noTrouble, ...status } } },
          { fieldManager: 'myelin-lab' },
        );
        if (told.metadata.uid === uid) onTold(told);
      } catch (error) {
        if (isApiError(error, 'NotFound', 'Conflict')) return;
        log.warn({ err: error }, 'the pod’s status could not be reported');
        this.#dirty = true;
        await sleep(retryMs);
      }
    }
  }
}
