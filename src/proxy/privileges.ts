import { MyelinError } from '../model/error.ts';

/** Nobody's: of no account of the machine, so no file and no other process is its own. */
const nobody = 64747;

/**
 * Becomes a user that owns nothing, with none of the capabilities that it was started with (capabilities(7), Effect of user
 * ID changes). To be called once all modules are loaded: that user may not even read where they lie.
 * @throws {MyelinError} `Privileged`, where any privilege is left
 */
export function dropPrivileges(): void {
  const { geteuid, setgroups, setgid, setuid } = process;
  if (geteuid === undefined || setgroups === undefined || setgid === undefined || setuid === undefined)
    throw new MyelinError('Privileged', 'there are no users here to become');
  if (geteuid() !== 0) return;
  setgroups([]);
  setgid(nobody);
  setuid(nobody);
  if (geteuid() !== nobody) throw new MyelinError('Privileged', 'the proxy is still root');
}
