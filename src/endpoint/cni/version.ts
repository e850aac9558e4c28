import { CniError } from './error.ts';

/**
 * The versions of the CNI protocol that are spoken, oldest first. 0.1.0 and 0.2.0 are not: their result has no
 * interfaces, and no runtime has sent them since 2017.
 */
export const cniVersions = ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof cniVersions)[number];
export const newestVersion: CniVersion = '1.1.0';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

/** The version that brought a command; the others have been there from the start. */
const since: Partial<Record<CniCommand, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

export function isCniVersion(text: unknown): text is CniVersion {
  return cniVersions.some((version) => version === text);
}

/** The `cniVersion` of a configuration that nobody has checked yet. */
export function versionOf(config: unknown): unknown {
  return typeof config === 'object' && config !== null && 'cniVersion' in config ? config.cniVersion : undefined;
}

export function atLeast(version: CniVersion, other: CniVersion): boolean {
  return cniVersions.indexOf(version) >= cniVersions.indexOf(other);
}

/**
 * @param text The configuration's `cniVersion`; absent means 0.1.0, as it does for every CNI implementation.
 * @throws {CniError} `DecodingFailure` where it is not text, `IncompatibleVersion` where it is not spoken or the
 * command did not exist in it.
 */
export function negotiate(text: unknown, command: CniCommand): CniVersion {
  if (text !== undefined && typeof text !== 'string')
    throw new CniError('DecodingFailure', 'failed to decode cniVersion', `expected text, got ${JSON.stringify(text)}`);
  const version = text ?? '0.1.0';
  if (!isCniVersion(version))
    throw new CniError(
      'IncompatibleVersion',
      'incompatible CNI versions',
      `config is ${JSON.stringify(version.slice(0, 64))}, plugin supports ${JSON.stringify(cniVersions)}`,
    );
  const first = since[command];
  if (first !== undefined && !atLeast(version, first))
    throw new CniError(
      'IncompatibleVersion',
      `config version does not allow ${command}`,
      `config is "${version}", ${command} exists since "${first}"`,
    );
  return version;
}
