import { cniVersions, newestVersion, versionOf } from '../cni/version.ts';

/** The answer to VERSION, which needs no agent. The spec echoes the version that was asked in, also one to come. */
export function versionAnswer(config: unknown): unknown {
  const asked = versionOf(config);
  return { cniVersion: typeof asked === 'string' ? asked : newestVersion, supportedVersions: cniVersions };
}
