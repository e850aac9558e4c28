/** A port that a program is told to listen on. */
export interface ListenPort {
  readonly port: number;
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
}

/** Reads `80`, `80/TCP`, `53/UDP`; whatever else stands among the arguments is not a port. */
export function portsOf(args: readonly string[]): ListenPort[] {
  return args.flatMap((arg) => {
    const [, port, protocol = 'TCP'] = /^(\d{1,5})(?:\/(TCP|UDP|SCTP))?$/.exec(arg) ?? [];
    if (port === undefined || !(protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP')) return [];
    return [{ port: Number(port), protocol }];
  });
}
