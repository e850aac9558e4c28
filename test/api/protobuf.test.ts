import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeKubeProtobuf } from '../../src/api/server/http/kube-protobuf.ts';
import { ProtobufWriter } from '../../src/api/server/http/protobuf.ts';
import { StatusError } from '../../src/api/server/status.ts';

/** `runtime.Unknown` around an object, as kubectl sends it. */
function envelope(apiVersion: string, kind: string, write: (raw: ProtobufWriter) => void): Buffer {
  const body = new ProtobufWriter().message(1, (type) => type.string(1, apiVersion).string(2, kind)).message(2, write);
  return Buffer.concat([Buffer.from('k8s\0'), body.finish()]);
}

test('an object in protobuf is read by its fields', () => {
  const body = envelope('v1', 'ConfigMap', (raw) =>
    raw
      .message(1, (meta) => meta.string(1, 'cm').string(3, 'shop').bytes(8, Buffer.alloc(0)))
      .message(2, (pair) => pair.string(1, 'a').string(2, 'ä'))
      .message(2, (pair) => pair.string(1, 'empty'))
      .message(3, (pair) => pair.string(1, 'b').bytes(2, Buffer.from([0, 255])))
      .bool(4, true),
  );
  assert.deepEqual(decodeKubeProtobuf(body), {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'cm', namespace: 'shop' },
    data: { a: 'ä', empty: '' },
    binaryData: { b: 'AP8=' },
    immutable: true,
  });
});

test('a field that is not known is refused where it says something, and so is a kind', () => {
  const refused = (body: Buffer, message: RegExp) =>
    assert.throws(
      () => decodeKubeProtobuf(body),
      (error) => error instanceof StatusError && error.status.code === 415 && message.test(error.message),
    );
  refused(
    envelope('v1', 'Pod', () => {}),
    /^Pod in protobuf is not understood/,
  );
  refused(
    envelope('v1', 'Namespace', (raw) => raw.message(9, (inner) => inner.string(1, 'x'))),
    /^field 9 of the object is not understood/,
  );
  assert.deepEqual(
    decodeKubeProtobuf(
      envelope('v1', 'Namespace', (raw) => raw.message(9, (inner) => inner.bytes(1, Buffer.alloc(0)))),
    ),
    { apiVersion: 'v1', kind: 'Namespace' },
  );
  refused(Buffer.from('{}'), /^no Kubernetes protobuf/);
});

test('whatever bytes come, the answer is an object or a refusal', () => {
  const whole = envelope('apps/v1', 'Deployment', (raw) =>
    raw
      .message(1, (meta) => meta.string(1, 'd'))
      .message(2, (spec) =>
        spec.message(3, (template) => template.message(2, (pod) => pod.message(2, (c) => c.string(1, 'c')))),
      ),
  );
  const damaged = fc.tuple(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length)).map(([at, byte, length]) => {
    const copy = Buffer.from(whole);
    copy[at] = byte;
    return copy.subarray(0, Math.max(length, 4));
  });
  const random = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.concat([Buffer.from('k8s\0'), bytes]));
  fc.assert(
    fc.property(fc.oneof(damaged, random), (body) => {
      try {
        assert.equal(typeof decodeKubeProtobuf(body), 'object');
      } catch (error) {
        assert.ok(error instanceof StatusError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});
