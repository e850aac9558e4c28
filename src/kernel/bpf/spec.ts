/** What an object file says of a map. */
export interface MapSpec {
  readonly name: string;
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** Made by the compiler for global variables: never pinned or shared. */
  readonly internal: boolean;
  /** Type ids in the object's BTF; 0 where the map has no typed key or value. */
  readonly btfKeyType: number;
  readonly btfValueType: number;
}

/** What it says of a program. */
export interface ProgramSpec {
  readonly name: string;
  readonly section: string;
  readonly instructions: number;
}
