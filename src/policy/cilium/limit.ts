/** What cannot be enforced, by its place below what was asked about. */
export interface LimitAt {
  readonly path: readonly (string | number)[];
  readonly reason: string;
}
