import { StatusError } from '../status.ts';

/** In which form objects are asked for. */
export type Form =
  | { readonly as: 'objects' }
  | { readonly as: 'table'; readonly apiVersion: string; readonly includeObject: string }
  | { readonly as: 'metadata'; readonly apiVersion: string };

/**
 * Picks the first form of the Accept header that this server has.
 * @throws {StatusError} `NotAcceptable` where there is none (protobuf only, for one).
 */
export function negotiate(accept: string | undefined, includeObject: string | undefined): Form {
  if (accept === undefined || accept.trim() === '') return { as: 'objects' };
  for (const entry of accept.split(',')) {
    const [type = '', ...parameters] = entry.split(';').map((part) => part.trim());
    if (type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue;
    const wanted = new Map(parameters.map((parameter) => [parameter.split('=')[0], parameter.split('=')[1]] as const));
    const as = wanted.get('as');
    const apiVersion = `meta.k8s.io/${wanted.get('v') ?? 'v1'}`;
    const known = wanted.get('g') === 'meta.k8s.io' && (apiVersion.endsWith('/v1') || apiVersion.endsWith('/v1beta1'));
    if (as === undefined) return { as: 'objects' };
    if (known && as === 'Table') return { as: 'table', apiVersion, includeObject: includeObject ?? 'Metadata' };
    if (known && (as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList'))
      return { as: 'metadata', apiVersion };
  }
  throw new StatusError(406, 'NotAcceptable', 'only the following media types are accepted: application/json');
}
