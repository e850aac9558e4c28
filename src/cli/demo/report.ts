import type { TunnelReport } from '../../agent/wire.ts';
import { paint, table } from '../output.ts';
import { tunnelTable } from '../tunnels.ts';
import type { Outcome } from './attacks.ts';
import type { Edge } from './call-graph.ts';
import type { RequestRow, Requests } from './requests.ts';
import type { WireSummary } from './wire.ts';

/** Something that must be so for the demo to have succeeded. */
export interface Expectation {
  readonly what: string;
  readonly met: boolean;
}

export interface StepTime {
  readonly step: string;
  readonly ms: number;
}

export interface DemoResult {
  readonly edges: readonly Edge[];
  readonly requests: Requests;
  readonly tunnels: readonly TunnelReport[];
  readonly wire: WireSummary;
  /** That the capture was too slow for: above zero, its counts prove nothing. */
  readonly framesLost: number;
  /** Plaintext frames that the capture saw of those that the attack put there: shows that the detector detects. */
  readonly control: { readonly injected: number; readonly seen: number };
  readonly attacks: readonly Outcome[];
  readonly times: readonly StepTime[];
}

const hybrid = 'X25519MLKEM768';
const good = (text: string) => paint('green', text);
const bad = (text: string) => paint('red', text);

/** What must hold, judged from what was measured. */
export function expectations({
  edges,
  requests,
  tunnels,
  wire,
  framesLost,
  control,
  attacks,
}: DemoResult): Expectation[] {
  const up = tunnels.filter(({ state }) => state === 'up' || state === 'rekeying');
  return [
    { what: 'every call of the shop was answered', met: edges.length > 0 && edges.every(({ failed }) => failed === 0) },
    { what: 'every call names the rules that decided it', met: edges.every(({ decidedBy }) => decidedBy.length > 0) },
    { what: 'some calls crossed nodes', met: edges.some(({ acrossNodes }) => acrossNodes) },
    {
      what: 'every request was answered as policy has it, and as it is without',
      met: requests.rows.every(({ statuses, expected }) => statuses.length === 1 && statuses[0] === expected),
    },
    { what: 'denied requests left their connection as it was', met: requests.connections === 1 },
    { what: 'tunnels came up', met: up.length > 0 },
    { what: `every tunnel’s keys came out of ${hybrid}`, met: up.every(({ group }) => group === hybrid) },
    { what: 'the capture missed no frame', met: framesLost === 0 },
    { what: 'the wire carried ESP', met: (wire.kinds.get('ESP in UDP')?.frames ?? 0) > 0 },
    { what: 'the wire carried no plaintext', met: (wire.kinds.get('plaintext')?.frames ?? 0) === 0 },
    { what: 'no payload of a pod was seen on the wire', met: wire.canarySightings === 0 },
    {
      what: 'plaintext that was put there on purpose was seen',
      met: control.seen === control.injected && control.injected > 0,
    },
    ...attacks.map(({ attack, stopped }) => ({ what: `stopped: ${attack}`, met: stopped })),
  ];
}

export function formatReport(result: DemoResult, expected: readonly Expectation[]): string {
  const failed = expected.filter(({ met }) => !met);
  const sections = [
    section('Who called whom, and by which rule', edgeTable(result.edges)),
    section('What may be asked of the catalogue', requestText(result.requests)),
    // Both nodes list each tunnel; once is enough for a reader.
    section(
      'The tunnels',
      tunnelTable(
        result.tunnels.filter(({ node, remoteNode }) => node < remoteNode),
        true,
      ),
    ),
    section('The wire', wireText(result)),
    section('The attacks', attackTable(result.attacks)),
    section('Time', timeTable(result.times)),
    failed.length === 0
      ? good(`✓ all ${expected.length} expectations hold`)
      : [
          bad(`✗ ${failed.length} of ${expected.length} expectations failed:`),
          ...failed.map(({ what }) => bad(`  ${what}`)),
        ].join('\n'),
  ];
  return sections.join('\n\n');
}

function section(title: string, body: string): string {
  return `${paint('bold', title)}\n${body.replaceAll(/^/gm, '  ')}`;
}

function edgeTable(edges: readonly Edge[]): string {
  return table<Edge>(
    [
      { title: 'FROM', value: (e) => e.from },
      { title: 'TO', value: (e) => e.to },
      { title: 'REQUESTS', value: (e) => String(e.requests), align: 'right' },
      { title: 'VERDICT', value: (e) => (e.verdict === 'allow' ? good('allowed') : bad('denied')) },
      { title: 'FAILED', value: (e) => (e.failed === 0 ? '0' : bad(String(e.failed))), align: 'right' },
      { title: 'MEDIAN', value: (e) => `${e.medianMs.toFixed(1)} ms`, align: 'right' },
      { title: 'WAY', value: (e) => (e.acrossNodes ? 'tunnel' : 'one node') },
      { title: 'DECIDED BY', value: (e) => paint('cyan', e.decidedBy.join(' and ')) },
    ],
    edges,
  );
}

function requestText({ rows, connections, oneNode }: Requests): string {
  const answer = ({ statuses, failures, expected }: RequestRow) => {
    const text = statuses.map((status) => (status === 0 ? `none (${failures})` : String(status))).join(', ');
    return statuses.every((status) => status === expected) ? good(text) : bad(`${text}, not ${expected}`);
  };
  return [
    table<RequestRow>(
      [
        { title: 'BY WAY OF', value: (r) => r.way },
        { title: 'REQUEST', value: (r) => r.request },
        { title: 'ANSWER', value: answer },
        { title: 'TIMES', value: (r) => String(r.count), align: 'right' },
        { title: 'MEDIAN', value: (r) => `${r.medianMs.toFixed(2)} ms`, align: 'right' },
        { title: '99 %', value: (r) => `${r.p99Ms.toFixed(2)} ms`, align: 'right' },
      ],
      rows,
    ),
    `Myelin’s 403 is the kernel’s: the catalogue never saw those requests, and all of them came on ${connections === 1 ? good('one connection') : bad(`${connections} connections`)} ${oneNode ? 'on one node' : 'through a tunnel between two nodes'}`,
  ].join('\n');
}

function wireText({ wire, control }: DemoResult): string {
  const rows = [...wire.kinds].map(([kind, tally]) => ({ kind, ...tally })).sort((a, b) => b.bytes - a.bytes);
  const kinds = table<(typeof rows)[number]>(
    [
      { title: 'KIND', value: (r) => (r.kind === 'plaintext' ? bad(r.kind) : r.kind) },
      { title: 'FRAMES', value: (r) => String(r.frames), align: 'right' },
      { title: 'BYTES', value: (r) => String(r.bytes), align: 'right' },
    ],
    rows,
  );
  const plaintext = wire.kinds.get('plaintext')?.frames ?? 0;
  return [
    kinds,
    `plaintext of pods: ${plaintext === 0 ? good('0') : bad(String(plaintext))} of ${wire.frames} frames; the pods’ own words were seen ${wire.canarySightings === 0 ? good('0') : bad(String(wire.canarySightings))} times`,
    `and the detector works: of ${control.injected} plaintext frames that an attack put onto the wire it saw ${control.seen}`,
    ...wire.oddities.map((text) => paint('dim', `  seen: ${text}`)),
  ].join('\n');
}

function attackTable(attacks: readonly Outcome[]): string {
  return table<Outcome>(
    [
      { title: 'ATTACK', value: (a) => a.attack },
      { title: '', value: (a) => (a.stopped ? good('stopped') : bad('NOT STOPPED')) },
      { title: 'BY', value: (a) => a.by },
    ],
    attacks,
  );
}

function timeTable(times: readonly StepTime[]): string {
  const total = times.reduce((sum, { ms }) => sum + ms, 0);
  return table<StepTime>(
    [
      { title: 'STEP', value: (t) => t.step },
      { title: 'TOOK', value: (t) => `${(t.ms / 1000).toFixed(1)} s`, align: 'right' },
    ],
    [...times, { step: 'all', ms: total }],
  );
}
