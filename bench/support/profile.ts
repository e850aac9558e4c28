import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/kernel/command.ts';

/** Where processor time went: shares of all that was not idle, largest first. */
export interface Profile {
  /** Of the machine's processors, 0 to 1. */
  readonly busy: number;
  readonly shares: readonly { readonly where: string; readonly share: number }[];
}

const idle = /safe_halt|_idle\b|idle_(enter|exit)|cpu_idle|do_idle/;
const places: readonly [where: string, matches: (sample: Sample) => boolean][] = [
  ['AES-GCM', ({ dso }) => /IPSec_MB|libcrypto/.test(dso)],
  ['the engine’s own code', ({ comm, dso }) => comm.startsWith('myelin-engine') && !isKernel(dso)],
  ['wireguard-go’s own code', ({ dso }) => dso.includes('wireguard-go')],
  ['the load’s own code', ({ comm, dso }) => /^(iperf3|sockperf)/.test(comm) && !isKernel(dso)],
  ['kernel: BPF programs', ({ symbol, dso }) => /^bpf_|bpf_prog/.test(symbol) || dso.startsWith('bpf_')],
  [
    'kernel: copies and clearing',
    ({ symbol, dso }) =>
      isKernel(dso) &&
      /copy_(to|from|page|user)|_copy|copyin|copyout|memcpy|rep_movs|clear_page|csum_partial/.test(symbol),
  ],
  [
    'kernel: wake-ups and switches',
    ({ symbol, dso }) =>
      isKernel(dso) &&
      /sched|switch|ttwu|wake|futex|enqueue_(task|entity)|dequeue_(task|entit)|pick_(next|task)|unlock_irqrestore|task_rq|update_curr|update_load|hrtimer|reweight|yield|finish_task/.test(
        symbol,
      ),
  ],
  [
    'kernel: memory of packets',
    ({ symbol, dso }) =>
      isKernel(dso) && /kmem|slab|alloc|free|page_frag|skb_release|put_page|unref|charge/.test(symbol),
  ],
  [
    'kernel: system calls',
    ({ symbol, dso }) => isKernel(dso) && /syscall|entry_|seccomp|fdget|exit_to_user/.test(symbol),
  ],
  ['kernel: the rest of the network stack', ({ dso }) => isKernel(dso)],
];

interface Sample {
  readonly comm: string;
  readonly symbol: string;
  readonly dso: string;
}

function isKernel(dso: string): boolean {
  return dso.startsWith('[kernel') || dso.startsWith('[');
}

/**
 * Samples the whole machine while a load runs.
 * @returns The profile beside the load's result; undefined where there is no perf (Debian: linux-perf) or it may not sample.
 */
export async function profiled<T>(seconds: number, load: () => Promise<T>): Promise<[T, Profile | undefined]> {
  const directory = mkdtempSync(join(tmpdir(), 'myelin-profile-'));
  const data = join(directory, 'perf.data');
  try {
    const recording = run(
      'perf',
      ['record', '-q', '-a', '-F', '997', '-e', 'cpu-clock', '-o', data, '--', 'sleep', String(seconds)],
      { timeout: (seconds + 20) * 1000 },
    ).then(
      () => true,
      () => false,
    );
    const result = await load();
    if (!(await recording)) return [result, undefined];
    const { stdout } = await run('sh', [
      '-c',
      'perf script -i "$0" -F comm,ip,sym,dso 2>/dev/null | sort | uniq -c',
      data,
    ]);
    return [result, fold(stdout)];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** @param text Lines of `count comm address symbol (dso)`. */
function fold(text: string): Profile {
  const counts = new Map<string, number>();
  let [all, busy] = [0, 0];
  for (const line of text.split('\n')) {
    const match = /^\s*(\d+)\s+(\S.*?)\s+[0-9a-f]{6,16} (.*) \((.*)\)$/.exec(line);
    if (match === null) continue;
    const [, count = '0', comm = '', symbol = '', dso = ''] = match;
    all += Number(count);
    if (idle.test(symbol)) continue;
    busy += Number(count);
    const where = places.find(([, matches]) => matches({ comm, symbol, dso }))?.[0] ?? 'other programs';
    counts.set(where, (counts.get(where) ?? 0) + Number(count));
  }
  const shares = [...counts]
    .map(([where, count]) => ({ where, share: count / busy }))
    .sort((a, b) => b.share - a.share);
  return { busy: busy / all, shares };
}

export function printProfile(title: string, profile: Profile | undefined): void {
  if (profile === undefined) {
    console.error(`${title}: no profile (perf is not there: apt-get install linux-perf)`);
    return;
  }
  console.error(`${title}: processors ${Math.round(profile.busy * 100)} % busy, of that`);
  for (const { where, share } of profile.shares)
    if (share >= 0.005) console.error(`  ${(share * 100).toFixed(1).padStart(5)} %  ${where}`);
}
