import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';

/** docs/ARCHITECTURE.md: a file imports only from its own room or from rooms on lower floors. */
const floors: readonly (readonly string[])[] = [
  ['model'],
  ['policy', 'kernel'],
  ['datapath', 'identity', 'api'],
  ['tunnel', 'endpoint', 'service', 'observe'],
  ['agent', 'controller', 'proxy'],
  ['cli', 'lab'],
];
/** The two rooms of the top floor that are one thing to a user: `myelin lab` and `myelin demo` are commands over the lab. */
const allowedSideways = new Set(['cli → lab']);
/** Rooms whose decisions are functions from values to values. */
const pureRooms = new Set(['model', 'policy']);
/** What a pure room may still use of Node: parsing and hashing, no I/O. */
const pureBuiltins = new Set(['node:net', 'node:crypto', 'node:util']);

const source = resolve(import.meta.dirname, '../src');

interface Import {
  readonly file: string;
  readonly room: string;
  readonly target: string;
}

const imports: Import[] = readdirSync(source, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .flatMap((file) => {
    const text = readFileSync(join(source, file), 'utf8');
    const room = file.split('/')[0] ?? '';
    const specifiers = [
      ...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^'";]*?from\s*'([^']+)'|import\(\s*'([^']+)'\s*\)/g),
    ];
    return specifiers.map((match) => ({ file, room, target: match[1] ?? match[2] ?? '' }));
  });

const floorOf = (room: string) => floors.findIndex((rooms) => rooms.includes(room));

test('the tree has imports to check', () => assert.ok(imports.length > 100, `only ${imports.length} imports found`));

test('every room stands on a floor', () => {
  for (const room of new Set(imports.map((i) => i.room)))
    assert.notEqual(floorOf(room), -1, `src/${room} is on no floor`);
});

test('imports go down or stay in the room', () => {
  const wrong = imports.flatMap(({ file, room, target }) => {
    if (!target.startsWith('.')) return [];
    const targetRoom = relative(source, resolve(source, dirname(file), target)).split('/')[0] ?? '';
    if (targetRoom === room || floorOf(targetRoom) < floorOf(room)) return [];
    return allowedSideways.has(`${room} → ${targetRoom}`) ? [] : [`${file} imports ${target}`];
  });
  assert.deepEqual(wrong, []);
});

test('pure rooms do no I/O', () => {
  const wrong = imports.filter(
    ({ room, target }) => pureRooms.has(room) && target.startsWith('node:') && !pureBuiltins.has(target),
  );
  assert.deepEqual(wrong, []);
});

test('casts of native memory stay in kernel/: nothing else imports the foreign-function library', () => {
  assert.deepEqual(
    imports.filter(({ room, target }) => target === 'koffi' && room !== 'kernel').map(({ file }) => file),
    [],
  );
});
