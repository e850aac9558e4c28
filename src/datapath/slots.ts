interface End {
  readonly address: string;
  readonly port: number;
}

/**
 * Arranges a service's backends in slots 0, 1, 2…: one that stays keeps its slot if that still exists, and the others
 * fill the gaps in their order, so that little is written when one backend comes or goes.
 */
export function arrangeSlots<T extends End>(old: readonly T[], wanted: readonly T[]): T[] {
  const keyOf = ({ address, port }: End) => `${address} ${port}`;
  const waiting = new Map(wanted.map((backend) => [keyOf(backend), backend]));
  const kept = old.slice(0, waiting.size).map((backend) => {
    const stays = waiting.get(keyOf(backend));
    waiting.delete(keyOf(backend));
    return stays;
  });
  const others = waiting.values();
  const size = kept.filter((backend) => backend !== undefined).length + waiting.size;
  return Array.from({ length: size }, (_, slot) => kept[slot] ?? others.next().value).filter(
    (backend) => backend !== undefined,
  );
}
