import { closeSync } from 'node:fs';
import { errnoError, errnoName, KernelError } from '../error.ts';
import { copyBytes, libbpf } from '../ffi/libbpf.ts';
import { Btf } from './btf.ts';
import { type MapInfo, mapInfo } from './map.ts';
import type { MapSpec } from './spec.ts';

/**
 * Looks at the pin before libbpf does: libbpf compares sizes only, and two layouts of one size would be mixed up.
 * A pin that is not there yet is fine.
 * @param grows Whether the pinned map may have another capacity than the object says.
 * @returns The pinned map's capacity; undefined where there is none.
 * @throws {KernelError} `IncompatiblePin`, `Errno`
 */
export function checkPin(path: string, spec: MapSpec, btf: Btf, grows = false): number | undefined {
  const fd = libbpf.obj_get(path);
  if (fd < 0) {
    if (errnoName(-fd) === 'ENOENT') return undefined;
    throw errnoError(-fd, 'open the pinned map', path);
  }
  let info: MapInfo;
  let difference: string | undefined;
  try {
    info = mapInfo(fd, path);
    difference = compare(info, grows ? { ...spec, maxEntries: info.maxEntries } : spec, btf);
  } finally {
    closeSync(fd);
  }
  if (difference === undefined) return info.maxEntries;
  throw new KernelError('IncompatiblePin', `the pinned map ${path} was made by another version (${difference})`, {
    operation: 'reuse the pinned map',
    object: path,
    map: spec.name,
    difference,
  });
}

/** @returns What differs, or undefined where the map is as the object wants it. */
function compare(info: MapInfo, spec: MapSpec, btf: Btf): string | undefined {
  // A ring buffer has no key or value, but the kernel's flags of an LPM trie and the like are the object's own.
  for (const what of ['type', 'keySize', 'valueSize', 'maxEntries', 'flags'] as const)
    if (info[what] !== spec[what]) return `${what} ${info[what]}, not ${spec[what]}`;
  if (info.btfId === 0 || spec.btfValueType === 0) return undefined;
  const pinned = kernelBtf(info.btfId);
  if (pinned === undefined) return undefined;
  for (const what of ['btfKeyType', 'btfValueType'] as const) {
    if (spec[what] === 0 || info[what] === 0) continue;
    const [have, want] = [pinned.describe(info[what]), btf.describe(spec[what])];
    if (have !== want) return `${what === 'btfKeyType' ? 'key' : 'value'} ${have}, not ${want}`;
  }
  return undefined;
}

function kernelBtf(id: number): Btf | undefined {
  const handle = libbpf.btf_load_by_id(id);
  if (handle === null) return undefined;
  try {
    const size = new Uint32Array(1);
    const data = libbpf.btf_raw_data(handle, size);
    return data === null ? undefined : new Btf(copyBytes(data, size[0] ?? 0));
  } finally {
    libbpf.btf_free(handle);
  }
}
