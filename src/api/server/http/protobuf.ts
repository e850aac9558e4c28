/** Writes protobuf messages, as much of the encoding as OpenAPI documents need. Fields are written in the order of the calls. */
export class ProtobufWriter {
  readonly #parts: Buffer[] = [];

  /** A string field; an empty one is left out, as proto3 does. */
  string(field: number, text: string): this {
    return text === '' ? this : this.bytes(field, Buffer.from(text));
  }

  /** A length-delimited field: bytes, or an embedded message. */
  bytes(field: number, value: Buffer): this {
    this.#parts.push(varint((field << 3) | 2), varint(value.length), value);
    return this;
  }

  /** An embedded message. */
  message(field: number, write: (inner: ProtobufWriter) => void): this {
    const inner = new ProtobufWriter();
    write(inner);
    return this.bytes(field, inner.finish());
  }

  bool(field: number, value: boolean): this {
    if (value) this.#parts.push(varint(field << 3), varint(1));
    return this;
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** @param value Not negative, below 2^53. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}
