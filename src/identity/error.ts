import { MyelinError } from '../model/error.ts';

export type IdentityErrorCode =
  /** A certificate that cannot be read, or is not what its holder needs. */
  | 'BadCertificate'
  /** A certificate request that cannot be read, has a key we do not sign, or does not prove possession of its key. */
  | 'BadCsr'
  | 'BadBundle'
  /** The name, UID or address cannot stand in a certificate. */
  | 'BadName'
  /** The CA's directory is unreadable, unsafe, or of another trust domain. */
  | 'CaDirectory'
  /** A step of root rotation that is not allowed now. */
  | 'CaState'
  /** The issuer said no; `data.reason` is its code. */
  | 'IssueRefused'
  | 'IssuerUnreachable'
  /** The pod was removed, or the store closed, while its certificate was awaited. */
  | 'Abandoned';

export class IdentityError extends MyelinError<IdentityErrorCode> {}
