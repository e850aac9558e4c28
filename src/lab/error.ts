import { MyelinError } from '../model/error.ts';

export type LabErrorCode =
  /** The lab's name, or a number given for it, cannot be used. */
  | 'BadName'
  /** Up, where it is up already; or anything else, where it is not. */
  | 'LabExists'
  | 'NoSuchLab'
  | 'NoSuchNode'
  | 'NoSuchPod'
  /** A process of the lab did not start, or ended; `data.log` is where it said why. */
  | 'ProcessFailed'
  /** Something was waited for in vain. */
  | 'Timeout'
  /** The lab is up, but not all its pods are ready. */
  | 'NotReady'
  /** This machine lacks something; the message says what to do. */
  | 'Missing';

export class LabError extends MyelinError<LabErrorCode> {}
