import { chmodSync, chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Container, PodSpec } from '../../api/kinds.ts';
import type { Mount } from './container.ts';
import type { Sources } from './environment.ts';

const items = z.array(z.object({ key: z.string(), path: z.string() })).optional();
const volumeSource = z.object({
  name: z.string(),
  emptyDir: z.looseObject({}).nullish(),
  hostPath: z.object({ path: z.string(), type: z.string().optional() }).optional(),
  configMap: z.looseObject({ name: z.string(), optional: z.boolean().optional(), items }).optional(),
  secret: z.looseObject({ secretName: z.string(), optional: z.boolean().optional(), items }).optional(),
});

/**
 * Makes a pod's volumes on the machine: emptyDir, hostPath, configMap, secret. Any other kind becomes an empty directory.
 * @returns Volume name → path on the machine, or what is missing.
 */
export function makeVolumes(
  spec: PodSpec,
  directory: string,
  sources: Sources,
): { readonly paths: ReadonlyMap<string, string> } | { readonly missing: string } {
  const paths = new Map<string, string>();
  for (const raw of spec.volumes ?? []) {
    const { name, hostPath, configMap, secret } = volumeSource.catch({ name: raw.name }).parse(raw);
    const path = hostPath?.path ?? join(directory, name);
    paths.set(name, path);
    if (hostPath !== undefined) continue;
    mkdirSync(path, { recursive: true });
    const { fsGroup } = spec.securityContext ?? {};
    if (fsGroup !== undefined) chownSync(path, 0, fsGroup);
    chmodSync(path, 0o1777);
    const wanted = configMap ?? secret;
    if (wanted === undefined) continue;
    const source = configMap !== undefined ? configMap.name : (secret?.secretName ?? '');
    const data = configMap !== undefined ? sources.configMap(source) : sources.secret(source);
    if (data === undefined && wanted.optional !== true) return { missing: `volume ${name}: ${source} not found` };
    const files = wanted.items ?? Object.keys(data ?? {}).map((key) => ({ key, path: key }));
    for (const { key, path: file } of files) {
      // Whoever writes a pod must not write outside of its volume.
      if (file.startsWith('/') || file.split('/').includes('..'))
        return { missing: `volume ${name}: bad path ${file}` };
      mkdirSync(dirname(join(path, file)), { recursive: true });
      writeFileSync(join(path, file), data?.[key] ?? '', { mode: 0o644 });
    }
  }
  return { paths };
}

/** The mounts of one container. */
export function mountsOf(container: Container, volumes: ReadonlyMap<string, string>): Mount[] {
  return (container.volumeMounts ?? []).flatMap(({ name, mountPath, readOnly = false, subPath }) => {
    const path = volumes.get(name);
    if (path === undefined || subPath?.split('/').includes('..') === true) return [];
    const source = subPath === undefined ? path : join(path, subPath);
    if (subPath !== undefined) mkdirSync(source, { recursive: true });
    return [{ source, target: mountPath, readOnly }];
  });
}
