import { styleText } from 'node:util';
import { familyOf } from '../model/address.ts';
import type { FlowEvent } from '../model/flow.ts';
import { dropReasons, formatRule } from '../model/verdict.ts';

type Paint = (style: Parameters<typeof styleText>[0], text: string) => string;

/** One line for a person: time, verdict, who to whom, protocol, what decided. */
export function formatFlow(flow: FlowEvent, colour: boolean): string {
  const paint: Paint = (style, text) => (colour ? styleText(style, text, { validateStream: false }) : text);
  const time = new Date(flow.time).toISOString().slice(11, 23);
  const verdict =
    flow.kind === 'audit'
      ? paint('yellow', 'audit')
      : flow.verdict === 'allow'
        ? paint('green', 'allow')
        : paint('red', 'deny ');
  const service = flow.service === undefined ? '' : paint('dim', ` (via ${flow.service})`);
  const volume =
    flow.kind === 'deny' || flow.kind === 'audit' || flow.kind === 'request'
      ? ''
      : paint('dim', `  ${flow.packets} packets, ${formatBytes(flow.bytes)}`);
  return (
    `${paint('dim', time)} ${verdict} ${flow.kind.padEnd(8)} ${String(flow.protocol).padEnd(6)} ` +
    `${formatEnd(flow.source)} → ${formatEnd(flow.destination)}${service}  ${exchangeOf(flow)}${paint('cyan', decidedBy(flow))}${volume}${logOf(flow)}`
  );
}

/** A request and its answer. */
function exchangeOf({ kind, http, durationNs }: FlowEvent): string {
  if (http === undefined) return '';
  const time = durationNs === undefined ? '' : ` in ${(durationNs / 1e6).toFixed(1)} ms`;
  const unsaid = http.unsaid === 0 ? '' : ` (${http.unsaid} more before this)`;
  const tls = http.tls === undefined ? '' : `TLS ${http.tls.serverName ?? 'without a name'}`;
  if (tls !== '' && http.method === '' && http.status === undefined) return `${tls}${unsaid}  `;
  const request = http.method === '' ? 'unreadable' : `${http.method} ${http.path}`;
  const grpc = http.grpcStatus === undefined ? '' : ` grpc ${http.grpcStatus}`;
  const answer = http.status === undefined ? 'reset' : `${http.status}${grpc}`;
  const within = tls === '' ? '' : ` in ${tls}`;
  return `${request}${within}${kind === 'audit' ? '' : ` → ${answer}${time}`}${unsaid}  `;
}

/** What the rule has said where it decides, and how often that was left out. */
function logOf({ log }: FlowEvent): string {
  if (log === undefined) return '';
  return `  “${log.text}”${log.unsaid === 0 ? '' : ` (${log.unsaid} more before this)`}`;
}

/** What decided, in words; of what is audited, what would have denied it. */
export function decidedBy(flow: Pick<FlowEvent, 'rule' | 'reason' | 'verdict' | 'direction'>): string {
  if (flow.reason !== undefined) {
    const by = flow.rule === undefined ? '' : `, ${formatRule(flow.rule)}`;
    return `${flow.direction}: ${flow.reason} (${dropReasons[flow.reason].text}${by})`;
  }
  if (flow.rule !== undefined) return formatRule(flow.rule);
  return `${flow.direction}: no policy selects the pod`;
}

export function formatEnd(end: FlowEvent['source']): string {
  const address =
    end.port === 0
      ? end.address
      : familyOf(end.address) === 6
        ? `[${end.address}]:${end.port}`
        : `${end.address}:${end.port}`;
  switch (end.kind) {
    case 'pod':
      return `${end.namespace}/${end.name}${end.port === 0 ? '' : `:${end.port}`}`;
    case 'node':
      return `node ${end.name} ${address}`;
    case 'host':
      return `this node ${address}`;
    case 'world':
      return end.name === undefined ? `world ${address}` : `world ${end.name} (${address})`;
    case 'unknown':
      return `unknown ${address}`;
  }
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
