import type { Container, PodSpec } from '../../api/kinds.ts';

/** As whom a container runs and what it may do. */
export interface Privileges {
  readonly user: number;
  readonly group: number;
  readonly groups: readonly number[];
  /** Lower case, without `cap_`; undefined: every one there is. */
  readonly capabilities: readonly string[] | undefined;
  readonly noNewPrivileges: boolean;
}

/** What container runtimes give root by default. */
const defaultCapabilities = [
  'chown',
  'dac_override',
  'fowner',
  'fsetid',
  'kill',
  'setgid',
  'setuid',
  'setpcap',
  'net_bind_service',
  'net_raw',
  'sys_chroot',
  'mknod',
  'audit_write',
  'setfcap',
];

/** Reads the security contexts of a pod and of a container of it; the container's own wins. */
export function privilegesOf(pod: PodSpec, container: Container): Privileges {
  const outer = pod.securityContext ?? {};
  const inner = container.securityContext ?? {};
  const user = inner.runAsUser ?? outer.runAsUser ?? 0;
  const groups = [...(outer.supplementalGroups ?? []), ...(outer.fsGroup === undefined ? [] : [outer.fsGroup])];
  return {
    user,
    group: inner.runAsGroup ?? outer.runAsGroup ?? 0,
    groups: [...new Set(groups)],
    capabilities: inner.privileged === true ? undefined : capabilitiesOf(inner.capabilities),
    noNewPrivileges: inner.allowPrivilegeEscalation === false,
  };
}

function capabilitiesOf({ add = [], drop = [] }: { add?: string[] | undefined; drop?: string[] | undefined } = {}) {
  const name = (text: string) => text.toLowerCase().replace(/^cap_/, '');
  const added = add.map(name);
  if (added.includes('all')) return undefined;
  const dropped = new Set(drop.map(name));
  const kept = dropped.has('all') ? [] : defaultCapabilities.filter((each) => !dropped.has(each));
  return [...new Set([...kept, ...added])];
}

/** The command prefix that takes a process from root's every privilege to these. */
export function privilegeArguments(privileges: Privileges): string[] {
  const { user, group, groups, capabilities, noNewPrivileges } = privileges;
  return [
    'setpriv',
    `--reuid=${user}`,
    `--regid=${group}`,
    groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`,
    ...(noNewPrivileges ? ['--no-new-privs'] : []),
    ...(capabilities === undefined
      ? []
      : [`--bounding-set=${['-all', ...capabilities.map((each) => `+${each}`)].join(',')}`, '--inh-caps=-all']),
    '--',
  ];
}
