import type { Resource } from '../kinds.ts';
import { isApiError } from './error.ts';
import type { Api } from './types.ts';

/** Whether the API knows the kind at all. @throws {ApiError} where it cannot be asked */
export async function isServed(api: Api, resource: Resource, signal?: AbortSignal): Promise<boolean> {
  try {
    await api.list(resource, signal === undefined ? {} : { signal });
    return true;
  } catch (error) {
    if (isApiError(error, 'NotFound')) return false;
    throw error;
  }
}
