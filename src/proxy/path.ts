/** A target as flows show it: without its query, its first 128 bytes. */
export function pathForPeople(target: string): string {
  return target.replace(/[?#].*$/s, '').slice(0, 128);
}
