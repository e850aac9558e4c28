import { KernelError } from '../error.ts';

/** One member of a struct: where it stands, and its type in a form that is equal for equal layouts. */
export interface BtfMember {
  readonly name: string;
  /** Bytes from the struct's start. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** `u32`, `i64`, `u8[16]`, `{a@0:u32,b@4:u16}`: typedefs and qualifiers resolved, names of structs left out. */
  readonly type: string;
}

export interface BtfStruct {
  readonly name: string;
  readonly size: number;
  readonly members: readonly BtfMember[];
}

interface RawType {
  readonly kind: number;
  readonly name: string;
  /** A size or a type id, by kind. */
  readonly sizeOrType: number;
  readonly vlen: number;
  readonly kindFlag: boolean;
  /** Offset of what follows the common 12 bytes. */
  readonly rest: number;
}

// include/uapi/linux/btf.h
const Kind = {
  int: 1,
  ptr: 2,
  array: 3,
  struct: 4,
  union: 5,
  enum: 6,
  forward: 7,
  typedef: 8,
  volatile: 9,
  const: 10,
  restrict: 11,
  func: 12,
  funcProto: 13,
  var: 14,
  dataSection: 15,
  float: 16,
  declTag: 17,
  typeTag: 18,
  enum64: 19,
} as const;
const magic = 0xeb9f;

/** How many bytes follow the common part of a type. */
function restSize(kind: number, vlen: number): number {
  switch (kind) {
    case Kind.int:
    case Kind.var:
    case Kind.declTag:
      return 4;
    case Kind.array:
      return 12;
    case Kind.struct:
    case Kind.union:
    case Kind.dataSection:
    case Kind.enum64:
      return 12 * vlen;
    case Kind.enum:
    case Kind.funcProto:
      return 8 * vlen;
    default:
      return 0;
  }
}

/** The type information of an object file or of a loaded map, as pure data. */
export class Btf {
  readonly #view: DataView;
  readonly #types: readonly RawType[];

  /**
   * @param bytes Raw BTF in this machine's byte order: a `.BTF` section, or what the kernel gives for a BTF id.
   * @throws {KernelError} `BadObject`
   */
  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 24 || this.#view.getUint16(0, true) !== magic)
      throw new KernelError('BadObject', 'not BTF: the magic number is missing', { operation: 'read', object: 'BTF' });
    const word = (offset: number) => this.#view.getUint32(offset, true);
    const header = word(4);
    const strings = bytes.subarray(header + word(16), header + word(16) + word(20));
    const name = (offset: number) => {
      const end = strings.indexOf(0, offset);
      return new TextDecoder().decode(strings.subarray(offset, end));
    };
    const types: RawType[] = [{ kind: 0, name: 'void', sizeOrType: 0, vlen: 0, kindFlag: false, rest: 0 }];
    const end = header + word(8) + word(12);
    for (let at = header + word(8); at < end; ) {
      const info = word(at + 4);
      const type = {
        kind: (info >>> 24) & 0x1f,
        name: name(word(at)),
        sizeOrType: word(at + 8),
        vlen: info & 0xffff,
        kindFlag: info >>> 31 === 1,
        rest: at + 12,
      };
      types.push(type);
      at += 12 + restSize(type.kind, type.vlen);
    }
    this.#types = types;
  }

  /** @returns The layout of `struct <name>` (or union), or undefined where no type of the object needs it. */
  struct(name: string): BtfStruct | undefined {
    const id = this.#types.findIndex((type) => isComposite(type.kind) && type.name === name);
    return id < 0 ? undefined : this.structOf(id);
  }

  /** @returns The struct behind a type id (a map's key or value), or undefined where it is none. */
  structOf(id: number): BtfStruct | undefined {
    const type = this.#resolve(id);
    if (!isComposite(type.kind)) return undefined;
    return { name: type.name, size: type.sizeOrType, members: this.#members(type) };
  }

  /** @returns The values of `enum <name>` by their names, or undefined where there is no such enum. */
  enumeration(name: string): ReadonlyMap<string, number> | undefined {
    const type = this.#types.find((candidate) => candidate.kind === Kind.enum && candidate.name === name);
    if (type === undefined) return undefined;
    const nameAt = (at: number) => this.#stringAt(this.#view.getUint32(at, true));
    return new Map(
      Array.from({ length: type.vlen }, (_, i): [string, number] => [
        nameAt(type.rest + 8 * i),
        this.#view.getInt32(type.rest + 8 * i + 4, true),
      ]),
    );
  }

  /** @returns A text that is equal for two types exactly where their layouts and member names are equal. */
  describe(id: number): string {
    const type = this.#resolve(id);
    switch (type.kind) {
      case Kind.int: {
        const signed = (this.#view.getUint32(type.rest, true) >>> 24) & 1;
        return `${signed ? 'i' : 'u'}${8 * type.sizeOrType}`;
      }
      case Kind.array: {
        const element = this.#view.getUint32(type.rest, true);
        return `${this.describe(element)}[${this.#view.getUint32(type.rest + 8, true)}]`;
      }
      case Kind.struct:
      case Kind.union:
        return `{${this.#members(type)
          .map((member) => `${member.name}@${member.offset}:${member.type}`)
          .join(',')}}`;
      case Kind.enum:
        return `enum${8 * type.sizeOrType}`;
      case Kind.ptr:
        return 'pointer';
      default:
        return `kind${type.kind}:${type.sizeOrType}`;
    }
  }

  #members(type: RawType): BtfMember[] {
    return Array.from({ length: type.vlen }, (_, i) => {
      const at = type.rest + 12 * i;
      const id = this.#view.getUint32(at + 4, true);
      const offset = this.#view.getUint32(at + 8, true);
      // With the kind flag, the upper byte holds a bit field's width.
      const bits = type.kindFlag ? offset & 0xff_ffff : offset;
      const width = type.kindFlag ? offset >>> 24 : 0;
      return {
        name: this.#stringAt(this.#view.getUint32(at, true)),
        offset: Math.floor(bits / 8),
        size: this.#sizeOf(id),
        type: width === 0 ? this.describe(id) : `${this.describe(id)}:${bits % 8}/${width}`,
      };
    });
  }

  #sizeOf(id: number): number {
    const type = this.#resolve(id);
    if (type.kind === Kind.ptr) return 8;
    if (type.kind === Kind.array)
      return this.#sizeOf(this.#view.getUint32(type.rest, true)) * this.#view.getUint32(type.rest + 8, true);
    return type.sizeOrType;
  }

  /** Follows typedefs and qualifiers. */
  #resolve(id: number): RawType {
    for (let type = this.#types[id]; type !== undefined; type = this.#types[type.sizeOrType])
      if (!isAlias(type.kind)) return type;
    throw new KernelError('BadObject', `BTF has no type ${id}`, { operation: 'read', object: 'BTF' });
  }

  #stringAt(offset: number): string {
    const header = this.#view.getUint32(4, true);
    let end = header + this.#view.getUint32(16, true) + offset;
    const start = end;
    while (this.#view.getUint8(end) !== 0) end++;
    return new TextDecoder().decode(new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, end - start));
  }
}

function isComposite(kind: number): boolean {
  return kind === Kind.struct || kind === Kind.union;
}

function isAlias(kind: number): boolean {
  return (
    kind === Kind.typedef ||
    kind === Kind.volatile ||
    kind === Kind.const ||
    kind === Kind.restrict ||
    kind === Kind.typeTag
  );
}
