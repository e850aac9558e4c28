import { stripVTControlCharacters, styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** Colours text for a terminal and leaves it alone in a pipe or under NO_COLOR. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
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
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} m ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} m`;
}
