import type { ProxyFlow } from '../policy/proxy/wire.ts';
import { limits } from './limits.ts';

/** How much is said of requests: of how many that are allowed one, and how many a second of each verdict; 0: none. */
export interface FlowSettings {
  readonly every: number;
  readonly perSecond: number;
}

/** What may be said in one second of one verdict, and what was left out since something was said. */
interface Allowance {
  second: number;
  said: number;
  unsaid: number;
}

/**
 * Request flows on their way to the agent: as many as the settings let through, and of those as many as fit while nobody
 * takes them. What is left out is counted, and the count is said.
 */
export class Flows {
  #settings: FlowSettings = { every: 1, perSecond: 100 };
  #kept: ProxyFlow[] = [];
  #lost = 0;
  #turn = 0;
  readonly #allowances: Record<ProxyFlow['verdict'], Allowance> = {
    allow: { second: 0, said: 0, unsaid: 0 },
    deny: { second: 0, said: 0, unsaid: 0 },
  };
  /** Called when something has been kept. */
  onKept: () => void = () => {};

  set(settings: FlowSettings): void {
    this.#settings = settings;
  }

  /** @param flow Its `unsaid` is filled in here. */
  say(flow: Omit<ProxyFlow, 'unsaid'>): void {
    const { every, perSecond } = this.#settings;
    const allowance = this.#allowances[flow.verdict];
    const second = Math.floor(flow.time / 1000);
    if (allowance.second !== second) Object.assign(allowance, { second, said: 0 });
    // Sampling is asked for, so what it leaves out is not missing; what is too much is.
    if (flow.verdict === 'allow' && (every === 0 || this.#turn++ % every !== 0)) return;
    if (perSecond === 0) return;
    if (allowance.said >= perSecond) {
      allowance.unsaid++;
      return;
    }
    if (this.#kept.length >= limits.flows) {
      this.#lost++;
      return;
    }
    allowance.said++;
    this.#kept.push({ ...flow, unsaid: allowance.unsaid });
    allowance.unsaid = 0;
    this.onKept();
  }

  /** @returns What is kept, and how many were not since the last time; undefined where there is neither. */
  take(): { flows: ProxyFlow[]; lost: number } | undefined {
    if (this.#kept.length === 0 && this.#lost === 0) return undefined;
    const taken = { flows: this.#kept, lost: this.#lost };
    this.#kept = [];
    this.#lost = 0;
    return taken;
  }
}
