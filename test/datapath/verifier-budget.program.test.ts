import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { objectFiles } from '../../src/datapath/objects.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { objectDir } from './node.ts';

/**
 * How many instructions the verifier walks for each program. What counts against its limit of a million grows faster
 * than the code does; a jump shows long before an older kernel refuses the program. A change that is worth it writes
 * its numbers into verifier-budget.json.
 */
const recorded: Readonly<Record<string, number>> = JSON.parse(
  readFileSync(join(import.meta.dirname, 'verifier-budget.json'), 'utf8'),
);
const tolerance = 1.25;

test('every program is within its recorded verifier budget', () => {
  const measured: Record<string, number> = {};
  for (const file of [...objectFiles, 'http', 'proxy_lookup', 'steer'] as const) {
    using object = BpfObject.open(join(objectDir, `${file}.bpf.o`)).load();
    for (const [name, program] of object.programs) measured[name] = program.info.verifiedInstructions;
  }
  assert.deepEqual(Object.keys(measured).sort(), Object.keys(recorded).sort());
  for (const [name, instructions] of Object.entries(measured)) {
    const budget = recorded[name] ?? 0;
    assert.ok(instructions > 0, `the kernel says nothing about ${name}`);
    assert.ok(
      instructions <= budget * tolerance,
      `${name}: the verifier walks ${instructions} instructions, more than ${tolerance} × ${budget} (verifier-budget.json)`,
    );
  }
});
