import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layouts, structs } from '../../src/kernel/ffi/libbpf.ts';
import { runC } from './compile.ts';

/** What the C compiler says: `struct member offset`, and `struct = size`. */
function fromHeaders(names: ReadonlyMap<string, readonly string[]>): Map<string, number> {
  const lines = [...names].flatMap(([name, members]) => [
    `printf("${name} = %zu\\n", sizeof(struct ${name}));`,
    ...members.map((member) => `printf("${name}.${member} = %zu\\n", offsetof(struct ${name}, ${member}));`),
  ]);
  const output = runC(`
#include <stddef.h>
#include <stdio.h>
#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
int main(void) { ${lines.join('\n')} return 0; }`);
  return new Map(
    output
      .trim()
      .split('\n')
      .map((line) => line.split(' = '))
      .map(([name = '', value]) => [name, Number(value)]),
  );
}

test('structs passed to libbpf are laid out as in its headers', () => {
  // This member has no name in C.
  const named = (member: string) => member !== 'reserved';
  const actual = fromHeaders(
    new Map(Object.entries(structs).map(([name, type]) => [name, Object.keys(type.members ?? {}).filter(named)])),
  );
  for (const [name, type] of Object.entries(structs)) {
    assert.equal(type.size, actual.get(name), `size of ${name}`);
    for (const [member, { offset }] of Object.entries(type.members ?? {}).filter(([member]) => named(member)))
      assert.equal(offset, actual.get(`${name}.${member}`), `${name}.${member}`);
  }
});

test('offsets into structs of the kernel are those of its headers', () => {
  const members = (layout: object) => Object.keys(layout).filter((key) => key !== 'size');
  const actual = fromHeaders(new Map(Object.entries(layouts).map(([name, layout]) => [name, members(layout)])));
  for (const [name, layout] of Object.entries(layouts)) {
    assert.equal(layout.size, actual.get(name), `size of ${name}`);
    for (const [member, offset] of Object.entries(layout).filter(([key]) => key !== 'size'))
      assert.equal(offset, actual.get(`${name}.${member}`), `${name}.${member}`);
  }
});
