import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { httpSaid, httpSettings } from '../../src/datapath/http/layouts.ts';
import { HttpTables } from '../../src/datapath/http/tables.ts';
import * as layouts from '../../src/datapath/layouts.ts';
import { ruleMaps } from '../../src/datapath/objects.ts';
import { type BodyState, bodyStart, readBody } from '../../src/policy/http/body.ts';
import { bytesOf } from '../../src/policy/http/canonical.ts';
import { compileMatcher } from '../../src/policy/http/matcher.ts';
import { parseHead } from '../../src/policy/http/parse.ts';
import { runMatcher } from '../../src/policy/http/run.ts';
import type { RuleSet } from '../../src/policy/image.ts';
import { pathOf } from '../../src/policy/request.ts';
import { headArbitrary, httpMatchArbitrary, mutated, piecesOf } from '../support/http.ts';
import { KernelReader, type Message } from './http-reader.ts';

/** More of them: MYELIN_HTTP_RUNS=200000. */
const runs = Number(process.env.MYELIN_HTTP_RUNS ?? 3000);
const reader = new KernelReader();
after(() => reader.close());

type Step = Message | { readonly kind: 'more' };

/** What the reference makes of the bytes, all of them there at once. Pieces of one body are one. */
function byReference(bytes: Uint8Array): Step[] {
  const steps: Step[] = [];
  let at = 0;
  while (at < bytes.length) {
    const answer = parseHead(bytes.subarray(at));
    if (answer.kind === 'more') return [...steps, { kind: 'more' }];
    if (answer.kind === 'refused') return [...steps, { kind: 'refused', reason: answer.reason }];
    at += answer.length;
    const { method, target, host, headers } = answer.request;
    const { framing } = answer;
    steps.push({
      kind: 'head',
      length: answer.length,
      method,
      target,
      path: pathOf(target),
      ...(host === undefined ? {} : { host }),
      headers,
      version: answer.version,
      framing: framing.kind === 'length' ? framing.length : framing.kind,
      upgrade: answer.upgrade,
    });
    let state: BodyState = bodyStart(framing);
    if (state.at === 'end') continue;
    const { state: next, consumed } = readBody(state, bytes.subarray(at));
    state = next;
    if (state.at === 'broken') return [...steps, { kind: 'refused', reason: 'HTTP_BODY_MALFORMED' }];
    steps.push({ kind: 'body', length: consumed, last: state.at === 'end' });
    at += consumed;
    if (state.at !== 'end') return steps;
  }
  return steps;
}

/** The same by the kernel's programs, which get the bytes in pieces. */
function byKernel(pieces: readonly Uint8Array[]): Step[] {
  reader.reset();
  const steps: Step[] = [];
  let open = false;
  for (const piece of pieces)
    for (const message of reader.feed(piece)) {
      const before = steps.at(-1);
      if (message.kind === 'body' && before?.kind === 'body' && !before.last)
        steps[steps.length - 1] = { ...message, length: before.length + message.length };
      else if (message.kind === 'refused' && before?.kind === 'body' && !before.last) steps[steps.length - 1] = message;
      else steps.push(message);
      open = message.kind === 'refused';
      if (open) return steps;
    }
  return steps;
}

/** The one who has read less: what the reference refuses early, the kernel may still wait to see the end of. */
function compare(bytes: Uint8Array, cuts: readonly number[]): void {
  const expected = byReference(bytes);
  const actual = byKernel(piecesOf(bytes, cuts));
  const what = JSON.stringify(Buffer.from(bytes).toString('latin1'));
  for (const [index, step] of actual.entries()) {
    const other = expected[index];
    assert.ok(other !== undefined, `${what}: the kernel goes on with ${step.kind}`);
    if (step.kind === 'refused') {
      // It looks at the first byte, and at the first line's end, where the reference waits for the line's end, or goes on.
      assert.ok(['refused', 'more'].includes(other.kind), `${what}: the kernel refuses what the reference does not`);
      continue;
    }
    if (step.kind === 'body' && other.kind === 'refused') {
      // The break is not there yet for who has seen less of a line.
      assert.ok(!step.last, what);
      continue;
    }
    if (step.kind === 'body' && step.length === 0) continue;
    assert.deepEqual(step, other, what);
  }
  const rest = expected.slice(actual.length);
  for (const step of rest) {
    if (step.kind === 'body' && step.length === 0) continue;
    assert.ok(
      step.kind === 'more' || step.kind === 'refused',
      `${what}: the kernel has not seen ${JSON.stringify(step, (_, v) => (typeof v === 'bigint' ? `${v}` : v))}`,
    );
  }
}

const cutsArbitrary = fc.oneof(fc.constant([]), fc.array(fc.nat({ max: 100_000 }), { maxLength: 6 }));
const chunkedArbitrary = fc
  .tuple(
    fc.array(fc.string({ minLength: 1, maxLength: 40 }), { maxLength: 4 }),
    fc.constantFrom('', ';x', ';x="y z"', ';\x01'),
    fc.constantFrom('', 'X-A: b\r\n', 'Host: b\r\n', 'X: y\r\nContent-Length: 1\r\n', 'x-z:\r\n'),
  )
  .map(([chunks, extension, trailers]) => {
    const texts = chunks.map((text) => Buffer.from(text).toString('latin1'));
    const parts = texts.map((text) => `${text.length.toString(16)}${extension}\r\n${text}\r\n`);
    return `POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${parts.join('')}0\r\n${trailers}\r\n`;
  });
const lengthArbitrary = fc
  .string({ maxLength: 60 })
  .map((text) => Buffer.from(text).toString('latin1'))
  .map((text) => `PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: ${text.length}\r\n\r\n${text}`);

test('heads are read as by the reference, wherever they are cut', () => {
  fc.assert(
    fc.property(mutated(headArbitrary), cutsArbitrary, (text, cuts) => compare(bytesOf(text), cuts)),
    { numRuns: runs },
  );
});

test('streams of requests with bodies are read as by the reference, wherever they are cut', () => {
  const whole = fc
    .array(fc.oneof(chunkedArbitrary, lengthArbitrary, headArbitrary), { minLength: 1, maxLength: 4 })
    .map((requests) => requests.join(''));
  fc.assert(
    fc.property(mutated(whole), cutsArbitrary, (text, cuts) => compare(bytesOf(text), cuts)),
    { numRuns: runs },
  );
});

test('a request may be cut at every byte', () => {
  const text =
    'POST /a%62/../c?d=%20 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n';
  const bytes = bytesOf(text + text);
  for (let cut = 1; cut < bytes.length; cut++) compare(bytes, [cut]);
  compare(
    bytes,
    Array.from(bytes, (_, at) => at),
  );
});

test('a head has 8,192 bytes at most, and a hundred lines', () => {
  const head = (length: number) => {
    const text = 'GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n';
    return bytesOf(text.replace('X: ', `X: ${'y'.repeat(length - text.length)}`));
  };
  const kindOf = (bytes: Uint8Array, cuts: number[] = []) => byKernel(piecesOf(bytes, cuts)).map((step) => step.kind);
  assert.deepEqual(kindOf(head(8192)), ['head']);
  assert.deepEqual(kindOf(head(8192), [1000, 5000, 8191]), ['head']);
  for (const cuts of [[], [8192], [8191], [100, 8000]]) {
    const [step] = byKernel(piecesOf(head(8193), cuts));
    assert.deepEqual(step, { kind: 'refused', reason: 'HTTP_HEAD_TOO_BIG' });
  }
  const lines = (count: number) => bytesOf(`GET / HTTP/1.1\r\nHost: a\r\n${'a: b\r\n'.repeat(count - 1)}\r\n`);
  assert.deepEqual(kindOf(lines(100)), ['head']);
  assert.deepEqual(byKernel([lines(101)]), [{ kind: 'refused', reason: 'HTTP_HEAD_TOO_BIG' }]);
});

test('a body longer than 4 GiB is counted to its end', () => {
  reader.reset();
  const size = 2n ** 33n + 5n;
  const [head] = reader.feed(bytesOf(`PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`));
  assert.equal(head?.kind === 'head' && head.framing, size);
  assert.deepEqual(reader.feed(new Uint8Array(7)), [{ kind: 'body', length: 7, last: false }]);
  assert.equal(reader.remaining(), size - 7n);
  reader.setRemaining(2n ** 32n + 2n);
  assert.deepEqual(reader.feed(new Uint8Array(3)), [{ kind: 'body', length: 3, last: false }]);
  assert.equal(reader.remaining(), 2n ** 32n - 1n);
  reader.setRemaining(4n);
  const next = bytesOf('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  const [body, request] = reader.feed(Buffer.concat([bytesOf('abcd'), next]));
  assert.deepEqual(body, { kind: 'body', length: 4, last: true });
  assert.equal(request?.kind, 'head');
});

test('a request is the same alternatives to the kernel as to the tables’ own reader', () => {
  const maps = ruleMaps((name) => reader.object.map(name));
  const counts = { some: 0, none: 0 };
  let last = 0;
  fc.assert(
    fc.property(
      fc.array(httpMatchArbitrary, { minLength: 1, maxLength: 12 }),
      fc.array(headArbitrary, { minLength: 1, maxLength: 12 }),
      (matches, heads) => {
        const compiled = compileMatcher(matches);
        assert.ok(compiled.ok);
        const tables = compiled.value;
        const alternative = { precedence: 1, rule: 1, verdict: 'allow' as const, flags: 0 };
        const id = ++last;
        const head = { id, key: '', direction: 'ingress', stage: 'network', probes: 0, flags: 0, rule: 0 } as const;
        const set: RuleSet = {
          ...head,
          entries: [],
          matcher: { tables, alternatives: matches.map(() => alternative) },
        };
        const all = new HttpTables(maps);
        all.prepare([set], []);
        maps.ruleSets.set(id, { probes: 0, flags: 0, rule: 0, matcher: all.matcherOf(id) });
        for (const text of heads) {
          const answer = parseHead(bytesOf(text));
          if (answer.kind !== 'head') continue;
          reader.reset();
          const [read] = reader.feed(bytesOf(text).subarray(0, answer.length));
          assert.equal(read?.kind, 'head');
          const expected = runMatcher(tables, answer.request);
          const actual = new Uint32Array(reader.match(id).buffer);
          assert.deepEqual([...actual.subarray(0, 1)], [...expected.subarray(0, 1)], JSON.stringify({ text, matches }));
          counts[expected.some((word) => word !== 0) ? 'some' : 'none']++;
        }
        maps.ruleSets.delete(id);
      },
    ),
    { numRuns: Math.ceil(runs / 20) },
  );
  assert.ok(counts.some > 20 && counts.none > 20, JSON.stringify(counts));
});

test('what is shared with user space is laid out as in C', () => {
  const { btf } = reader.object.spec;
  assert.deepEqual(httpSettings.differences(btf.struct('http_settings')), []);
  const said = btf.struct('http_event');
  assert.equal(said?.size, layouts.event.size + httpSaid.size);
  const places = new Map(said.members.map(({ name, offset }) => [name, offset - layouts.event.size]));
  assert.deepEqual(
    ['status', 'method_length', 'path_length', 'unsaid', 'method', 'path'].map((name) => places.get(name)),
    [0, 2, 3, 4, 8, 24],
  );
});
