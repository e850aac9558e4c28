import {
  type IpAddress,
  ipFromBytes,
  ipToBytes16,
  type MacAddress,
  macFromBytes,
  macToBytes,
} from '../../model/address.ts';
import type { BtfStruct } from './btf.ts';

/** How one member of a C struct is written and read. Numbers are in this machine's byte order unless said otherwise. */
export interface Field<T> {
  readonly size: number;
  readonly align: number;
  /** As `Btf.describe` shows the C type. */
  readonly type: string;
  write(view: DataView, at: number, value: T): void;
  read(view: DataView, at: number): T;
}

/** Bytes that a C struct names and nobody reads; they are written as zero. */
export interface Padding {
  readonly size: number;
  readonly align: 1;
  readonly type: string;
  readonly padding: true;
}

type Fields = Readonly<Record<string, Field<unknown> | Padding>>;
type ValueNames<F extends Fields> = { [K in keyof F]: F[K] extends Padding ? never : K }[keyof F];

/** The values of a struct, by the names of its members. */
export type Values<F extends Fields> = {
  readonly [K in ValueNames<F>]: F[K] extends { read(view: DataView, at: number): infer T } ? T : never;
};

/** The value type of a struct: `Value<typeof policyKey>`. */
export type Value<S> = S extends Struct<infer T> ? T : never;

/** How a whole key or value of a map is written and read. */
export interface Codec<T> {
  readonly size: number;
  encode(value: T): Uint8Array;
  /** @throws {RangeError} where `bytes` is too short. */
  decode(bytes: Uint8Array): T;
}

/** A C struct's layout, written once: encoder, decoder, and what is compared with an object's BTF. */
export interface Struct<T> extends Codec<T> {
  /** As C calls it. */
  readonly name: string;
  /** @returns A decoder of some members only, for those who go through many entries. */
  only<K extends keyof T & string>(...names: readonly K[]): (bytes: Uint8Array) => Pick<T, K>;
  /** @returns What is not as in C, one line per member; nothing where the layouts are the same. */
  differences(actual: BtfStruct | undefined): string[];
}

function number(bits: 8 | 16 | 32, type = `u${bits}`, littleEndian = true): Field<number> {
  return {
    size: bits / 8,
    align: bits / 8,
    type,
    write: (view, at, value) => view[`setUint${bits}`](at, value, littleEndian),
    read: (view, at) => view[`getUint${bits}`](at, littleEndian),
  };
}

export const u8 = number(8);
export const u16 = number(16);
export const u32 = number(32);
/** Network order. */
export const be16 = number(16, 'u16', false);

export const u64: Field<bigint> = {
  size: 8,
  align: 8,
  type: 'u64',
  write: (view, at, value) => view.setBigUint64(at, value, true),
  read: (view, at) => view.getBigUint64(at, true),
};

/** A branded number of 32 bits: `u32Of<IdentityNumber>()`. What is in a map is taken at its word. */
export function u32Of<T extends number>(): Field<T> {
  return u32 as unknown as Field<T>;
}

/** `struct addr`: 16 bytes, network order, IPv4 mapped. All zero, which is no endpoint's address, stands for none. */
export const addr: Field<IpAddress | undefined> = {
  size: 16,
  align: 4,
  type: '{words@0:u32[4]}',
  write: (view, at, value) => {
    if (value !== undefined) bytesOf(view, at, 16).set(ipToBytes16(value));
  },
  read: (view, at) => {
    const bytes = bytesOf(view, at, 16);
    return bytes.every((byte) => byte === 0) ? undefined : ipFromBytes(bytes);
  },
};

/** `struct addr` where it is always an address; `::` is one. */
export const someAddr: Field<IpAddress> = {
  ...addr,
  write: (view, at, value) => bytesOf(view, at, 16).set(ipToBytes16(value)),
  read: (view, at) => ipFromBytes(bytesOf(view, at, 16)),
};

export const mac: Field<MacAddress> = {
  size: 6,
  align: 1,
  type: 'u8[6]',
  write: (view, at, value) => bytesOf(view, at, 6).set(macToBytes(value)),
  read: (view, at) => macFromBytes(bytesOf(view, at, 6)),
};

/** Two of a kind, as counters of both directions are. */
export function pair<T>(field: Field<T>): Field<readonly [T, T]> {
  return {
    size: 2 * field.size,
    align: field.align,
    type: `${field.type}[2]`,
    write: (view, at, [first, second]) => {
      field.write(view, at, first);
      field.write(view, at + field.size, second);
    },
    read: (view, at) => [field.read(view, at), field.read(view, at + field.size)],
  };
}

/** An array; a list that is shorter is written with zeros behind it, and comes back with them. */
export function list<T>(field: Field<T>, length: number): Field<readonly T[]> {
  return {
    size: length * field.size,
    align: field.align,
    type: `${field.type}[${length}]`,
    write: (view, at, values) => {
      for (const [i, value] of values.slice(0, length).entries()) field.write(view, at + i * field.size, value);
    },
    read: (view, at) => Array.from({ length }, (_, i) => field.read(view, at + i * field.size)),
  };
}

/** Bytes of a text that ends with its first zero; what is too long for it is cut off. */
export function text(length: number): Field<string> {
  return {
    size: length,
    align: 1,
    type: `u8[${length}]`,
    write: (view, at, value) => bytesOf(view, at, length).set(Buffer.from(value, 'latin1').subarray(0, length - 1)),
    read: (view, at) => {
      const bytes = bytesOf(view, at, length);
      const end = bytes.indexOf(0);
      return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('latin1');
    },
  };
}

/** Members that are kept as they lie in memory, because there are many of them. */
export function raw(type: string, size: number, align: number): Field<Uint8Array> {
  return {
    size,
    align,
    type,
    write: (view, at, value) => bytesOf(view, at, size).set(value.subarray(0, size)),
    read: (view, at) => bytesOf(view, at, size).slice(),
  };
}

/** `u8 pad[n]`, or with a type `__u32 pad`. */
export function pad(size: number, type = size === 1 ? 'u8' : `u8[${size}]`): Padding {
  return { size, align: 1, type, padding: true };
}

/** A key or value that is one field by itself. */
export function single<T>(field: Field<T>): Codec<T> {
  return {
    size: field.size,
    encode(value) {
      const bytes = new Uint8Array(field.size);
      field.write(new DataView(bytes.buffer), 0, value);
      return bytes;
    },
    decode: (bytes) => field.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), 0),
  };
}

/**
 * @param name The struct's C name.
 * @param fields In the order of C, under their C names in camel case. Offsets follow from C's rules of alignment.
 */
export function struct<const F extends Fields>(name: string, fields: F): Struct<Values<F>> {
  let size = 0;
  let align = 1;
  const members = Object.entries(fields).map(([key, field]) => {
    const padding = 'padding' in field;
    // Padding in C is typed too, and aligned like its type.
    const wanted = padding && field.type === `u${8 * field.size}` ? field.size : field.align;
    const offset = Math.ceil(size / wanted) * wanted;
    size = offset + field.size;
    align = Math.max(align, wanted);
    return { key, offset, name: snakeCase(key), type: field.type, field: padding ? undefined : field };
  });
  size = Math.ceil(size / align) * align;
  return {
    name,
    size,
    encode(value) {
      const bytes = new Uint8Array(size);
      const view = new DataView(bytes.buffer);
      for (const { key, offset, field } of members) field?.write(view, offset, (value as Record<string, unknown>)[key]);
      return bytes;
    },
    decode: decoder(members),
    only(...names) {
      return decoder(members.filter(({ key }) => names.some((name) => name === key)));
    },
    differences(actual) {
      if (actual === undefined) return [`there is no struct ${name}`];
      const found: string[] = [];
      if (actual.size !== size) found.push(`struct ${name} has ${actual.size} bytes, not ${size}`);
      const want = members.map((member) => `${member.name}@${member.offset}:${member.type}`);
      const have = actual.members.map((member) => `${member.name}@${member.offset}:${member.type}`);
      for (let i = 0; i < Math.max(want.length, have.length); i++)
        if (want[i] !== have[i])
          found.push(`struct ${name} has ${have[i] ?? 'no further member'} where ${want[i] ?? 'nothing'} is expected`);
      return found;
    },
  };
}

function decoder<T>(members: readonly { key: string; offset: number; field: Field<unknown> | undefined }[]) {
  return (bytes: Uint8Array): T => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const value: Record<string, unknown> = {};
    for (const { key, offset, field } of members) if (field !== undefined) value[key] = field.read(view, offset);
    return value as T;
  };
}

function bytesOf(view: DataView, at: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
