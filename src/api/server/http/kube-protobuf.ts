import { isList, isObject, type JsonObject } from '../../json.ts';
import { StatusError } from '../status.ts';

// The generators of newer kubectls (`kubectl create namespace`, `kubectl expose`, …) send protobuf and do not fall back.
// What they can say is read here: the fields below, by the numbers of k8s.io/api/*/generated.proto. Anything else is
// refused, as a field that is not understood must not be lost.

type FieldType =
  | 'string'
  | 'int'
  | 'optionalInt'
  | 'bool'
  | 'bytes'
  | 'stringMap'
  | 'bytesMap'
  | 'intOrString'
  | Message;
/** Field number → name and type; a name that ends in [] is a list. Zero is a value of an `optionalInt` only. */
type Message = { readonly [number: number]: readonly [name: string, type: FieldType] };

const meta: Message = {
  1: ['name', 'string'],
  2: ['generateName', 'string'],
  3: ['namespace', 'string'],
  11: ['labels', 'stringMap'],
  12: ['annotations', 'stringMap'],
};
const selector: Message = { 1: ['matchLabels', 'stringMap'] };
const servicePort: Message = {
  1: ['name', 'string'],
  2: ['protocol', 'string'],
  3: ['port', 'int'],
  4: ['targetPort', 'intOrString'],
  5: ['nodePort', 'int'],
  6: ['appProtocol', 'string'],
};
const serviceSpec: Message = {
  1: ['ports[]', servicePort],
  2: ['selector', 'stringMap'],
  3: ['clusterIP', 'string'],
  4: ['type', 'string'],
  5: ['externalIPs[]', 'string'],
  7: ['sessionAffinity', 'string'],
  8: ['loadBalancerIP', 'string'],
  10: ['externalName', 'string'],
};
const container: Message = {
  1: ['name', 'string'],
  2: ['image', 'string'],
  3: ['command[]', 'string'],
  4: ['args[]', 'string'],
  6: [
    'ports[]',
    {
      1: ['name', 'string'],
      2: ['hostPort', 'int'],
      3: ['containerPort', 'int'],
      4: ['protocol', 'string'],
      5: ['hostIP', 'string'],
    },
  ],
  7: ['env[]', { 1: ['name', 'string'], 2: ['value', 'string'] }],
};
const template: Message = {
  1: ['metadata', meta],
  2: ['spec', { 2: ['containers[]', container], 3: ['restartPolicy', 'string'] }],
};
const deploymentSpec: Message = {
  1: ['replicas', 'optionalInt'],
  2: ['selector', selector],
  3: ['template', template],
};
const nothing: Message = {};

const messages: Readonly<Record<string, Message>> = {
  'v1/Namespace': { 1: ['metadata', meta], 2: ['spec', nothing], 3: ['status', nothing] },
  'v1/ServiceAccount': { 1: ['metadata', meta] },
  'v1/ConfigMap': {
    1: ['metadata', meta],
    2: ['data', 'stringMap'],
    3: ['binaryData', 'bytesMap'],
    4: ['immutable', 'bool'],
  },
  'v1/Secret': {
    1: ['metadata', meta],
    2: ['data', 'bytesMap'],
    3: ['type', 'string'],
    4: ['stringData', 'stringMap'],
    5: ['immutable', 'bool'],
  },
  'v1/Service': { 1: ['metadata', meta], 2: ['spec', serviceSpec], 3: ['status', nothing] },
  'apps/v1/Deployment': { 1: ['metadata', meta], 2: ['spec', deploymentSpec], 3: ['status', nothing] },
};

const magic = Buffer.from('k8s\0');

/** @returns The object that a protobuf body stands for. @throws {StatusError} `UnsupportedMediaType` for what is not understood. */
export function decodeKubeProtobuf(body: Buffer): JsonObject {
  if (!body.subarray(0, 4).equals(magic)) throw notUnderstood('no Kubernetes protobuf');
  // runtime.Unknown: typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2.
  let type: JsonObject = {};
  let raw: Buffer = Buffer.alloc(0);
  for (const { number, bytes } of fieldsOf(body.subarray(4))) {
    if (number === 1) type = readMessage({ 1: ['apiVersion', 'string'], 2: ['kind', 'string'] }, bytes, '');
    if (number === 2) raw = bytes;
  }
  const { apiVersion, kind } = type;
  const message = messages[`${String(apiVersion)}/${String(kind)}`];
  if (message === undefined) throw notUnderstood(`${String(kind)} in protobuf`);
  return { apiVersion, kind, ...readMessage(message, raw, '') };
}

interface WireField {
  readonly number: number;
  readonly bytes: Buffer;
  /** Of a varint. */
  readonly value: bigint;
}

function* fieldsOf(buffer: Buffer): Generator<WireField> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = buffer[at++];
      if (byte === undefined) throw notUnderstood('truncated protobuf');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw notUnderstood('an endless number in protobuf');
  };
  while (at < buffer.length) {
    const tag = Number(varint());
    const number = tag >>> 3;
    if ((tag & 7) === 0) yield { number, bytes: Buffer.alloc(0), value: varint() };
    else if ((tag & 7) === 2) {
      const length = Number(varint());
      if (length > buffer.length - at) throw notUnderstood('truncated protobuf');
      yield { number, bytes: buffer.subarray(at, at + length), value: 0n };
      at += length;
    } else throw notUnderstood(`wire type ${tag & 7} in protobuf`);
  }
}

function readMessage(message: Message, buffer: Buffer, path: string): JsonObject {
  const result: JsonObject = {};
  for (const field of fieldsOf(buffer)) {
    // Go writes fields that are empty; they are as good as absent, known or not.
    const empty = field.bytes.length === 0 && field.value === 0n;
    const known = message[field.number];
    if (known === undefined) {
      if (empty || isEmptyMessage(field.bytes)) continue;
      throw notUnderstood(`field ${field.number} of ${path === '' ? 'the object' : path}`);
    }
    const [label, type] = known;
    const name = label.replace('[]', '');
    const list = label.endsWith('[]');
    if (empty && !list && type !== 'optionalInt' && type !== 'bool') continue;
    put(result, name, list, readField(type, field, `${path}.${name}`));
  }
  return result;
}

/** Whether a message says nothing: all that is in it is empty, all the way down. */
function isEmptyMessage(bytes: Buffer): boolean {
  try {
    return [...fieldsOf(bytes)].every(
      ({ bytes: inner, value }) => value === 0n && (inner.length === 0 || isEmptyMessage(inner)),
    );
  } catch (error) {
    if (error instanceof StatusError) return false;
    throw error;
  }
}

function put(result: JsonObject, name: string, list: boolean, value: unknown): void {
  const known = result[name];
  if (list) result[name] = isList(known) ? [...known, value] : [value];
  else result[name] = isObject(known) && isObject(value) ? { ...known, ...value } : value;
}

function readField(type: FieldType, { bytes, value }: WireField, path: string): unknown {
  switch (type) {
    case 'string':
      return bytes.toString('utf8');
    case 'bytes':
      return bytes.toString('base64');
    case 'int':
    case 'optionalInt':
      return Number(BigInt.asIntN(64, value));
    case 'bool':
      return value !== 0n;
    case 'intOrString': {
      const {
        kind,
        number = 0,
        text = '',
      } = readMessage({ 1: ['kind', 'int'], 2: ['number', 'int'], 3: ['text', 'string'] }, bytes, path);
      return kind === 1 ? text : number;
    }
    case 'stringMap':
    case 'bytesMap': {
      const { key = '', value: member = '' } = readMessage(
        { 1: ['key', 'string'], 2: ['value', type === 'stringMap' ? 'string' : 'bytes'] },
        bytes,
        path,
      );
      return { [String(key)]: member };
    }
    default:
      return readMessage(type, bytes, path);
  }
}

function notUnderstood(what: string): StatusError {
  return new StatusError(
    415,
    'UnsupportedMediaType',
    `${what} is not understood; this server reads JSON, YAML, and of protobuf what "kubectl create" writes: use "--dry-run=client -o yaml | kubectl apply -f -"`,
  );
}
