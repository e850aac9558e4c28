import type { Attachment } from './cni/request.ts';
import type { Endpoint } from './endpoint.ts';

/** Why no ADD can be served now. */
export interface NotReady {
  readonly message: string;
  /** Whether pods that run suffer too. */
  readonly limited: boolean;
}

/** The rest of the agent, as far as it has a say in an endpoint's life. */
export interface EndpointHooks {
  /** The veth pair is there and down: attach the datapath, which drops everything. Failing here fails the ADD. */
  prepare(endpoint: Endpoint): Promise<void> | void;
  /** The endpoint is up, and still denied: make it known. Awaited before the runtime is told. */
  onAdded(endpoint: Endpoint): Promise<void> | void;
  /**
   * The endpoint goes: forget everything about it. Also called where its ADD failed or was cut short at any point
   * (`hostIndex` is 0 where there never was an interface), and again after a failure.
   */
  onRemoved(endpoint: Endpoint): Promise<void> | void;
  /** CHECK: what is wrong with it in the rest of the agent, such as a program that is not attached. */
  check?(endpoint: Endpoint): Promise<string | undefined>;
  /** STATUS */
  status?(): Promise<NotReady | undefined>;
}

/** The points between the steps of ADD (the first six; the first two come in either order) and of a removal (the others). */
export type Step =
  | 'reserved'
  | 'linked'
  | 'prepared'
  | 'wired'
  | 'announced'
  | 'stored'
  | 'forgotten'
  | 'unlinked'
  | 'released';

/** Called after each step and not awaited: what timings are taken by, and what tests cut in at. */
export type Trace = (step: Step, endpoint: Attachment) => void;
