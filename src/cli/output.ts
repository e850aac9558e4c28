import { stripVTControlCharacters, styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** Colours text for a terminal and leaves it alone in a pipe or under NO_COLOR. @param stream Where the text will go. */
export function paint(style: Style, text: string, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(style, text, { stream });
}

/** Whether what is printed goes to a terminal that shows colours. */
export function hasColour(): boolean {
  return process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
}

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'right';
}

/** Rows under aligned titles, two spaces between columns; widths count what is seen, not escape codes. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const cells = rows.map((row) => columns.map((column) => column.value(row)));
  const seen = (text: string) => stripVTControlCharacters(text).length;
  const widths = columns.map((column, i) => Math.max(column.title.length, ...cells.map((line) => seen(line[i] ?? ''))));
  const pad = (text: string, i: number) => {
    const space = ' '.repeat(Math.max(0, (widths[i] ?? 0) - seen(text)));
    if (columns[i]?.align === 'right') return space + text;
    return i === columns.length - 1 ? text : text + space;
  };
  const lines = [columns.map((column) => paint('bold', column.title)), ...cells];
  return lines.map((line) => line.map(pad).join('  ').trimEnd()).join('\n');
}

/** A duration for people: `850 ms`, `12 s`, `3 m 20 s`, `2 h 5 m`. */
export function formatDuration(ms: number): string {
  if (Math.round(ms) < 1000) return `${Math.round(ms)} ms`;
  if (Math.round(ms / 100) < 100) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} m`;
}

/** What was counted, where anything was: `title` and `name count, name count`. */
export function counts(title: string, record: Readonly<Record<string, number>>): string {
  const entries = Object.entries(record).filter(([, count]) => count > 0);
  return entries.length === 0 ? '' : `${title}${entries.map(([name, count]) => `${name} ${count}`).join(', ')}`;
}
